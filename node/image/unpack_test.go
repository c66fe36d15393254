package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"muster/state"
)

// fact is what of a file must survive an image.
type fact struct {
	Mode     uint32
	UID, GID uint32
	Size     int64
	Seconds  int64
	Link     string
	Content  string
	Xattrs   map[string]string
	Nlink    uint64
	// SameAs is the first name of the same inode.
	SameAs string
}

// facts reads a tree.
func facts(t testing.TB, root string) map[string]fact {
	t.Helper()
	all, first := map[string]fact{}, map[uint64]string{}
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, _ := filepath.Rel(root, name)
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		f := fact{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Seconds: st.Mtim.Sec}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			f.Size, f.Content, f.Nlink = st.Size, hex.EncodeToString(sum[:4]), st.Nlink
			if st.Nlink > 1 {
				if _, seen := first[st.Ino]; !seen {
					first[st.Ino] = relative
				}
				f.SameAs = first[st.Ino]
			}
		case unix.S_IFLNK:
			if f.Link, err = os.Readlink(name); err != nil {
				return err
			}
		}
		names, err := listXattrs(func(buf []byte) (int, error) { return unix.Llistxattr(name, buf) })
		if err != nil {
			return err
		}
		for _, attr := range names {
			value := make([]byte, 1024)
			n, err := unix.Lgetxattr(name, attr, value)
			if err != nil {
				return err
			}
			if f.Xattrs == nil {
				f.Xattrs = map[string]string{}
			}
			f.Xattrs[attr] = hex.EncodeToString(value[:n])
		}
		all[relative] = f
		return nil
	}))
	return all
}

// allSorts makes a tree of everything that an image carries, owned by ids that
// are shifted by base.
func allSorts(t testing.TB, base int) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	at := func(name string) string { return filepath.Join(root, name) }
	for _, d := range []string{"", "etc", "usr/bin", "var/lib/deep/er", "tmp", "empty"} {
		must(t, os.MkdirAll(at(d), 0o755))
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0\n", "usr/bin/su": "elf", "usr/bin/ping": "elf2", "var/lib/deep/er/one": strings.Repeat("line\n", 50_000),
		"etc/new\nline": "n", "etc/sp ace": "s", "etc/b\xffd": "latin", "etc/" + strings.Repeat("l", 200): "long", "empty-file": "",
	} {
		must(t, os.WriteFile(at(name), []byte(content), 0o644))
	}
	must(t, os.Link(at("etc/passwd"), at("etc/passwd-")))
	must(t, os.Link(at("etc/passwd"), at("var/lib/deep/other")))
	must(t, os.Symlink("/etc/passwd", at("absolute")))
	must(t, os.Symlink("../../../..", at("var/lib/climbs")))
	must(t, os.Link(at("absolute"), at("another")))
	must(t, unix.Mkfifo(at("run.fifo"), 0o620))
	must(t, unix.Mknod(at("etc/null"), unix.S_IFCHR|0o666, 0x103))
	sparse, err := os.Create(at("var/lastlog"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("middle"), 5<<20)
	must(t, err)
	must(t, sparse.Truncate(20<<20))
	must(t, sparse.Close())

	n := 0
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		n++
		return errors.Join(err, os.Lchown(name, base+n%5, base+n%3))
	}))
	must(t, os.Chown(at("usr/bin/su"), base, base))
	must(t, os.Chmod(at("usr/bin/su"), 0o4755|os.ModeSetuid))
	must(t, os.Chmod(at("empty"), 0o2775|os.ModeSetgid))
	must(t, os.Chmod(at("tmp"), 0o1777|os.ModeSticky))
	must(t, os.Chmod(at("etc/passwd"), 0o400))

	// cap_net_raw=ep: as the kernel keeps it outside of user namespaces, and
	// for the root user of the container inside of one.
	raw := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if base != 0 {
		raw = bindCapability(raw, uint32(base))
	}
	must(t, unix.Setxattr(at("usr/bin/ping"), capability, raw, 0))
	must(t, unix.Setxattr(at("etc/passwd"), "user.note", []byte("kept"), 0))
	must(t, unix.Setxattr(at("etc"), "user.empty", nil, 0))
	acl := writeACL([]aclEntry{
		{aclUserObj, 7, aclUndefined},
		{aclUser, 5, uint32(base + 33)},
		{aclGroupObj, 5, aclUndefined},
		{aclGroup, 4, uint32(base + 4)},
		{aclMask, 5, aclUndefined},
		{aclOther, 0, aclUndefined},
	})
	must(t, unix.Setxattr(at("etc/sp ace"), aclAccess, acl, 0))
	must(t, unix.Setxattr(at("var/lib"), aclDefault, acl, 0))

	n = 0
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		n++
		ts := unix.Timespec{Sec: int64(1_600_000_000 + n), Nsec: 123}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return root
}

// What the tools of Debian pack is what is unpacked, in every format.
func TestEveryFormatUnpacksToWhatWasPacked(t *testing.T) {
	needsRoot(t)
	tree := allSorts(t, 0)
	want := facts(t, tree)
	work := t.TempDir()
	must(t, os.WriteFile(filepath.Join(work, "metadata.yaml"), []byte(goodMetadata), 0o644))
	must(t, os.Symlink(tree, filepath.Join(work, "link")))
	tarOptions := []string{"--xattrs", "--xattrs-include=*", "--numeric-owner", "-c"}
	pack := func(name, program string, options ...string) string {
		out := filepath.Join(work, name)
		args := slices.Concat(tarOptions, []string{"-f", out}, options)
		if program != "" {
			needsProgram(t, strings.Fields(program)[0])
			args = append([]string{"-I", program}, args...)
		}
		run(t, "tar", args...)
		return out
	}
	whole := []string{"-C", work, "metadata.yaml", "-C", filepath.Dir(tree), "--transform=s,^tree,rootfs,S", "tree"}
	rootfs := []string{"-C", tree, "."}
	metadata := pack("meta.tar.xz", "xz", "-C", work, "metadata.yaml")

	squash := filepath.Join(work, "rootfs.squashfs")
	run(t, "mksquashfs", tree, squash, "-noappend", "-quiet", "-no-progress", "-comp", "zstd")

	for name, files := range map[string][]string{
		"a plain tarball":          {pack("a.tar", "", whole...)},
		"gzip":                     {pack("a.tar.gz", "gzip", whole...)},
		"xz":                       {pack("a.tar.xz", "xz", whole...)},
		"zstd":                     {pack("a.tar.zst", "zstd", whole...)},
		"bzip2":                    {pack("a.tar.bz2", "bzip2", whole...)},
		"lzma":                     {pack("a.tar.lzma", "xz --format=lzma", whole...)},
		"the old format of tar":    {pack("gnu.tar", "", append([]string{"--format=pax", "--sparse"}, whole...)...)},
		"split, a tarball":         {metadata, pack("r.tar.gz", "gzip", rootfs...)},
		"split, a tarball of zstd": {metadata, pack("r.tar.zst", "zstd", rootfs...)},
		"split, a squashfs":        {metadata, squash},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			var parts []Part
			for i, name := range files {
				f, err := os.Open(name)
				must(t, err)
				defer f.Close()
				parts = append(parts, Part{[]Role{RoleMetadata, RoleRootFS}[i], f})
			}
			if len(parts) == 1 {
				parts[0].Role = RoleUnified
			}
			info, err := importOf(t.Context(), s, Parts(parts...))
			must(t, err)
			out := filepath.Join(t.TempDir(), "out")
			var written int64
			must(t, s.Unpack(t.Context(), info.Fingerprint, out, func(n int64) { written = n }))
			want := want
			if files[len(files)-1] == squash {
				want = withoutACLs(want)
			}
			if diff := cmp.Diff(want, facts(t, filepath.Join(out, "rootfs"))); diff != "" {
				t.Errorf("the root file system differs (-packed +unpacked):\n%s", diff)
			}
			if written < 20<<20 {
				t.Errorf("progress ended at %d; want the bytes of all files", written)
			}
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(out, "rootfs/var/lastlog"), &st))
			if st.Blocks > 256 {
				t.Errorf("a sparse file takes %d blocks", st.Blocks)
			}
			if text, err := os.ReadFile(filepath.Join(out, "metadata.yaml")); err != nil || string(text) != goodMetadata {
				t.Errorf("metadata.yaml = %q, %v", text, err)
			}
			if entries, err := os.ReadDir(filepath.Join(out, "templates")); err != nil || len(entries) != 0 {
				t.Errorf("templates/ holds %v, %v; want it there and empty", entries, err)
			}
		})
	}
}

// withoutACLs is what a squashfs can hold: its format has no place for ACLs.
func withoutACLs(all map[string]fact) map[string]fact {
	changed := maps.Clone(all)
	for name, f := range changed {
		if f.Xattrs[aclAccess] != "" || f.Xattrs[aclDefault] != "" {
			f.Xattrs = nil // in this tree, nothing has another attribute besides
			changed[name] = f
		}
	}
	return changed
}

func TestAttributesThatSteerTheHostAreLeftOut(t *testing.T) {
	needsRoot(t)
	needsProgram(t, "mksquashfs")
	tree := t.TempDir()
	for _, attr := range []string{"trusted.overlay.redirect", "user.overlay.opaque", "trusted.note", "user.kept"} {
		must(t, unix.Setxattr(tree, attr, []byte("y"), 0))
	}
	squash := filepath.Join(t.TempDir(), "r.squashfs")
	run(t, "mksquashfs", tree, squash, "-noappend", "-quiet", "-no-progress")
	squashed, err := os.ReadFile(squash)
	must(t, err)
	records := map[string]string{}
	for _, attr := range []string{"trusted.overlay.redirect", "user.overlay.opaque", "trusted.note", "user.kept"} {
		records["SCHILY.xattr."+attr] = "y"
	}
	metadata := tarOf(t, meta())
	for name, rootfs := range map[string][]byte{
		"a tarball":  tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", PAXRecords: records}),
		"a squashfs": squashed,
	} {
		s := openStore(t)
		info, err := importOf(t.Context(), s, split(metadata, rootfs))
		must(t, err)
		out := filepath.Join(t.TempDir(), "out")
		must(t, s.Unpack(t.Context(), info.Fingerprint, out, nil))
		got := facts(t, filepath.Join(out, "rootfs"))["."].Xattrs
		if diff := cmp.Diff(map[string]string{"user.kept": hex.EncodeToString([]byte("y"))}, got); diff != "" {
			t.Errorf("%s: attributes (-want +got):\n%s", name, diff)
		}
	}
}

// Tools of the field strip the slash before a name, and a tarball of a running
// system or of debootstrap's tree holds what is in /dev.
func TestNamesAndDevicesAsToolsPackThem(t *testing.T) {
	needsRoot(t)
	device := func(name string, kind byte, major, minor int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Devmajor: major, Devminor: minor, Uid: 3, Gid: 5, Mode: 0o640}
	}
	tree := []tar.Header{
		dir("dev"), device("dev/null", tar.TypeChar, 1, 3), hardlink("dev/zero", "dev/null"), device("dev/deep/sda", tar.TypeBlock, 8, 0),
		symlink("dev/fd", "/proc/self/fd"), file("dev/kept"), dir("opt"), device("opt/null", tar.TypeChar, 1, 3), device("opt/loop", tar.TypeBlock, 7, 1),
		device("opt/whiteout", tar.TypeChar, 0, 0), hardlink("opt/again", "opt/null"),
	}
	below := func(prefix string) []tar.Header {
		var all []tar.Header
		for _, header := range tree {
			header.Name = prefix + header.Name
			if header.Typeflag == tar.TypeLink {
				header.Linkname = prefix + header.Linkname
			}
			all = append(all, header)
		}
		return all
	}
	whole := func(prefix string) func() (Part, error) {
		top := meta()
		top.Name = prefix + top.Name
		return unified(tarOf(t, append([]tar.Header{top, dir(prefix + "rootfs")}, below(prefix+"rootfs/")...)...))
	}
	halves := func(prefix string) func() (Part, error) {
		top := meta()
		top.Name = prefix + top.Name
		return split(tarOf(t, top), tarOf(t, append([]tar.Header{dir(prefix)}, below(prefix)...)...))
	}
	squashed := func() func() (Part, error) {
		source, rootfs := t.TempDir(), filepath.Join(t.TempDir(), "r.squashfs")
		for _, name := range []string{"dev/deep", "opt"} {
			must(t, os.MkdirAll(filepath.Join(source, name), 0o755))
		}
		for _, d := range tree {
			at := filepath.Join(source, d.Name)
			switch d.Typeflag {
			case tar.TypeChar, tar.TypeBlock:
				kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[d.Typeflag]
				must(t, unix.Mknod(at, kind|0o640, int(unix.Mkdev(uint32(d.Devmajor), uint32(d.Devminor)))))
				must(t, errors.Join(os.Lchown(at, 3, 5), os.Chmod(at, 0o640)))
			case tar.TypeSymlink:
				must(t, os.Symlink(d.Linkname, at))
			case tar.TypeReg:
				must(t, os.WriteFile(at, []byte("x"), 0o755))
			case tar.TypeLink:
				must(t, os.Link(filepath.Join(source, d.Linkname), at))
			}
		}
		must(t, unix.Mknod(source+"/opt/socket", unix.S_IFSOCK|0o600, 0))
		run(t, "mksquashfs", source, rootfs, "-noappend", "-quiet", "-no-progress")
		data, err := os.ReadFile(rootfs)
		must(t, err)
		return split(tarOf(t, meta()), data)
	}
	for name, next := range map[string]func() (Part, error){
		"a unified image": whole(""), "with a slash before": whole("/"), "with dots and slashes": whole(".//"), "with slashes before": whole("//"),
		"a split image": halves("./"), "a split image with slashes": halves("/"), "a squashfs": squashed(),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			info, err := importOf(t.Context(), s, next)
			must(t, err)
			out := filepath.Join(t.TempDir(), "out")
			must(t, s.Unpack(t.Context(), info.Fingerprint, out, nil))
			var got []string
			must(t, filepath.WalkDir(filepath.Join(out, "rootfs"), func(name string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				var st unix.Stat_t
				must(t, unix.Lstat(name, &st))
				relative, _ := filepath.Rel(filepath.Join(out, "rootfs"), name)
				if st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK {
					relative += fmt.Sprintf(" %o %d:%d of %d:%d", st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Uid, st.Gid)
				}
				got = append(got, relative)
				return nil
			}))
			want := []string{"dev/fd", "dev/kept", "opt/again 20640 1:3 of 3:5", "opt/loop 60640 7:1 of 3:5", "opt/null 20640 1:3 of 3:5"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the unpacked tree (-want +got):\n%s", diff)
			}
			published, err := s.Publish(t.Context(), PublishSpec{RootFS: filepath.Join(out, "rootfs"), Metadata: published, Compression: None})
			must(t, err)
			must(t, s.Unpack(t.Context(), published.Fingerprint, filepath.Join(t.TempDir(), "again"), nil))
		})
	}
}

func TestASquashfsThatIsRefusedLeavesNothing(t *testing.T) {
	needsRoot(t)
	for name, tc := range map[string]struct {
		fill func(tree string) error
		want string
	}{
		"more bytes than are allowed": {func(tree string) error { return os.WriteFile(tree+"/big", make([]byte, 2<<20), 0o600) }, "more than the 1048576 bytes"},
		"more entries than allowed": {func(tree string) (err error) {
			for i := range 30 {
				err = errors.Join(err, os.WriteFile(fmt.Sprint(tree, "/", i), nil, 0o600))
			}
			return err
		}, "more than 20 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := t.TempDir()
			must(t, tc.fill(tree))
			squash := filepath.Join(t.TempDir(), "r.squashfs")
			run(t, "mksquashfs", tree, squash, "-noappend", "-quiet", "-no-progress")
			rootfs, err := os.ReadFile(squash)
			must(t, err)
			s := openStore(t, func(c *Config) { c.MaxUnpacked, c.MaxEntries = 1<<20, 20 })
			_, err = importOf(t.Context(), s, split(tarOf(t, meta()), rootfs))
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Import = %v; want an invalid image and %q", err, tc.want)
			}
			wantNothingHeld(t, s)
		})
	}
}

// The walk refuses an archive that tries to leave; this is what happens if it
// did not.
func TestUnpackingCannotLeaveTheDirectory(t *testing.T) {
	needsRoot(t)
	outside := t.TempDir()
	inside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(inside, "rootfs")))
	tr, err := openTree(inside)
	must(t, err)
	defer tr.close()
	s := openStore(t)
	tr.room = s.newRoom(tr.top, "unpack")
	for name, e := range map[string]entry{
		"a file below a link":      {Header: &tar.Header{Typeflag: tar.TypeReg}, section: rootFS, name: "x"},
		"a directory below a link": {Header: &tar.Header{Typeflag: tar.TypeDir}, section: rootFS, name: "x"},
		"a file above":             {Header: &tar.Header{Typeflag: tar.TypeReg}, section: rootFS, name: "../../x"},
		"a hard link below a link": {Header: &tar.Header{Typeflag: tar.TypeLink}, section: templates, name: "x", link: "../rootfs/secret"},
	} {
		if err := tr.add(e, strings.NewReader("x")); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("the directory outside holds %v, %v", entries, err)
	}
}

func TestAFileThatComesTwiceIsTheSecond(t *testing.T) {
	needsRoot(t)
	s := openStore(t)
	info, err := importOf(t.Context(), s, unified(tarOf(t, meta(), file("rootfs/a"), hardlink("rootfs/b", "rootfs/a"),
		tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/a", Linkname: "second"}, symlink("rootfs/c", "/etc/passwd"),
		tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/c", Linkname: "no link"})))
	must(t, err)
	out := filepath.Join(t.TempDir(), "out")
	must(t, s.Unpack(t.Context(), info.Fingerprint, out, nil))
	for name, want := range map[string]string{"a": "second", "b": "x", "c": "no link"} {
		if got, err := os.ReadFile(filepath.Join(out, "rootfs", name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestUnpackLeavesTheDirectoryAsItWas(t *testing.T) {
	needsRoot(t)
	s := openStore(t)
	big := strings.Repeat("no hole ", 1<<17)
	info, err := importOf(t.Context(), s, unified(tarOf(t, meta(), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/big", Linkname: big}, file("rootfs/z"))))
	must(t, err)

	cancelled, cancel := context.WithCancel(t.Context())
	defer cancel()
	missing, existing, filled := filepath.Join(t.TempDir(), "out"), t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(filled, "theirs"), nil, 0o600))
	for _, out := range []string{missing, existing} {
		if err := s.Unpack(cancelled, info.Fingerprint, out, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("Unpack = %v; want it cancelled", err)
		}
	}
	if err := s.Unpack(t.Context(), info.Fingerprint, filled, nil); !errors.Is(err, state.ErrConflict) {
		t.Errorf("Unpack over files = %v; want a conflict", err)
	}
	if err := s.Unpack(t.Context(), strings.Repeat("0", 64), missing, nil); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Unpack of a stranger = %v; want not found", err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	for dir, want := range map[string]int{existing: 0, filled: 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("the directory holds %v, %v; want %d", entries, err, want)
		}
	}
}

func TestUnpackingToAFullDiskFreesWhatItTook(t *testing.T) {
	for name, reserve := range map[string]int64{"the device is full": -1, "the reserve is reached": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, "4m")
			s := openStore(t, func(c *Config) { c.Reserve = reserve })
			content := string(bytes.Repeat([]byte("not a hole\n"), 400_000))
			info, err := importOf(t.Context(), s, unified(compressed(t, tarOf(t, meta(),
				tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/one", Linkname: content},
				tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/two", Linkname: content}), Zstd)))
			must(t, err)
			before := used(t, disk)
			err = s.Unpack(t.Context(), info.Fingerprint, filepath.Join(disk, "out"), nil)
			if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("Unpack = %v; want a conflict that says so", err)
			}
			if after := used(t, disk); after != before {
				t.Errorf("%d bytes are taken on the disk, %d before", after, before)
			}
		})
	}
}

func TestADamagedImageIsNotUnpacked(t *testing.T) {
	needsRoot(t)
	content := strings.Repeat("some text ", 10_000)
	data := tarOf(t, meta(), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/a", Linkname: content}, file("rootfs/b"))
	for name, damage := range map[string]func([]byte) []byte{
		"in a file's content": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"in a header":         func(b []byte) []byte { b[512*3+7] ^= 1; return b },
		"cut off":             func(b []byte) []byte { return b[:len(b)/2] },
		"something else":      func([]byte) []byte { return []byte("rot") },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			info, err := importOf(t.Context(), s, unified(data))
			must(t, err)
			must(t, os.WriteFile(s.path(info.Fingerprint), damage(bytes.Clone(data)), 0o600))
			out := filepath.Join(t.TempDir(), "out")
			for what, err := range map[string]error{
				"Unpack": s.Unpack(t.Context(), info.Fingerprint, out, nil),
				"Verify": s.Verify(t.Context(), info.Fingerprint),
			} {
				if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "import the image again to mend it") {
					t.Errorf("%s = %v; want a conflict that says how to mend it", what, err)
				}
			}
			if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory was made: %v", err)
			}
			if _, err := importOf(t.Context(), s, unified(data)); err != nil {
				t.Errorf("importing it again: %v", err)
			}
			if err := s.Unpack(t.Context(), info.Fingerprint, out, nil); err != nil {
				t.Errorf("Unpack after importing it again: %v", err)
			}
		})
	}
}
