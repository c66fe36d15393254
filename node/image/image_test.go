package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/state"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sets owners of files")
	}
}

// onDisk counts what the store holds.
func onDisk(t *testing.T, s *Store) int {
	t.Helper()
	count := 0
	err := filepath.WalkDir(s.cfg.Dir, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			count++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

const goodMetadata = "architecture: amd64\ncreation_date: 1700000000\nproperties:\n  os: test\n  release: 22.10\n"

// tarOf makes a tarball of headers; a regular file's Linkname is its content.
func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, header := range headers {
		content := ""
		if header.Typeflag == tar.TypeReg {
			content, header.Linkname = header.Linkname, ""
		}
		header.Size = int64(len(content))
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func meta() tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: "metadata.yaml", Linkname: goodMetadata}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }

func TestImagesThatAreRefusedLeaveNothing(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: "x"} }
	for name, tc := range map[string]struct {
		headers []tar.Header
		want    string
	}{
		"an entry that climbs out":           {[]tar.Header{meta(), dir("rootfs"), file("rootfs/../../etc/passwd")}, `".."`},
		"an absolute entry":                  {[]tar.Header{meta(), dir("rootfs"), file("/etc/passwd")}, "absolute"},
		"a device":                           {[]tar.Header{meta(), dir("rootfs"), {Typeflag: tar.TypeBlock, Name: "rootfs/dev/sda", Devmajor: 8}}, "device node"},
		"an entry below a symbolic link":     {[]tar.Header{meta(), dir("rootfs"), {Typeflag: tar.TypeSymlink, Name: "rootfs/x", Linkname: "/etc"}, file("rootfs/x/passwd")}, "symbolic link"},
		"a hard link to what is outside":     {[]tar.Header{meta(), dir("rootfs"), {Typeflag: tar.TypeLink, Name: "rootfs/x", Linkname: "metadata.yaml"}}, "outside"},
		"no metadata":                        {[]tar.Header{dir("rootfs"), file("rootfs/a")}, "metadata.yaml"},
		"no root file system":                {[]tar.Header{meta()}, "rootfs"},
		"a virtual machine":                  {[]tar.Header{meta(), file("rootfs.img")}, "virtual machine"},
		"metadata of an unknown machine":     {[]tar.Header{{Typeflag: tar.TypeReg, Name: "metadata.yaml", Linkname: "architecture: pdp11\ncreation_date: 1\n"}, dir("rootfs")}, "pdp11"},
		"metadata that is no YAML":           {[]tar.Header{{Typeflag: tar.TypeReg, Name: "metadata.yaml", Linkname: "a: [b"}, dir("rootfs")}, "metadata.yaml"},
		"a template that leaves its folder":  {[]tar.Header{meta(), dir("rootfs"), file("templates/../x")}, `".."`},
		"templates that are symbolic links":  {[]tar.Header{meta(), dir("rootfs"), {Typeflag: tar.TypeSymlink, Name: "templates/x", Linkname: "/etc/shadow"}}, "not a regular file"},
		"a directory that was a file before": {[]tar.Header{meta(), dir("rootfs"), file("rootfs/a"), dir("rootfs/a")}, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Import(t.Context(), ImportSpec{Next: Parts(Part{RoleUnified, bytes.NewReader(tarOf(t, tc.headers...))})})
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Import = %v; want an invalid image and %q", err, tc.want)
			}
			if left := onDisk(t, s); left != 0 {
				t.Errorf("%d files are left; want none", left)
			}
		})
	}
}

func TestUploadsThatBreakOffLeaveNothing(t *testing.T) {
	whole := tarOf(t, meta(), dir("rootfs"), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/big", Linkname: strings.Repeat("x", 5000)})
	s := openStore(t)
	for at := 0; at < len(whole); at += 97 {
		for what, body := range map[string]io.Reader{
			"cut":    bytes.NewReader(whole[:at]),
			"broken": io.MultiReader(bytes.NewReader(whole[:at]), brokenLine{}),
		} {
			// The closing zeros of a tarball may be short by a block or more.
			if what == "cut" && at > len(whole)-1024 {
				continue
			}
			if _, err := s.Import(t.Context(), ImportSpec{Next: Parts(Part{RoleUnified, body})}); !errors.Is(err, state.ErrInvalid) {
				t.Errorf("%s at %d: Import = %v; want an invalid upload", what, at, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Import(ctx, ImportSpec{Next: Parts(Part{RoleUnified, bytes.NewReader(whole)})}); err == nil {
		t.Error("an import that was cancelled succeeded")
	}
	wrong := strings.Repeat("0", 64)
	if _, err := s.Import(t.Context(), ImportSpec{Fingerprint: wrong, Next: Parts(Part{RoleUnified, bytes.NewReader(whole)})}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a wrong fingerprint: %v", err)
	}
	if left := onDisk(t, s); left != 0 {
		t.Errorf("%d files are left; want none", left)
	}
}

type brokenLine struct{}

func (brokenLine) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestBusyboxComesInEveryFormatAndUnpacksTheSame(t *testing.T) {
	needsRoot(t)
	for name, spec := range map[string]BusyboxSpec{
		"gzip": {}, "zstd": {Compression: Zstd}, "xz": {Compression: XZ}, "bzip2": {Compression: Bzip2}, "plain": {Compression: None},
		"split": {Split: true}, "squashfs": {Squashfs: true},
	} {
		t.Run(name, func(t *testing.T) {
			spec.OutDir = t.TempDir()
			built, err := BuildBusybox(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			var parts []Part
			for _, part := range []struct {
				role Role
				path string
			}{{RoleUnified, built.Unified}, {RoleMetadata, built.Metadata}, {RoleRootFS, built.RootFS}} {
				if part.path == "" {
					continue
				}
				file, err := os.Open(part.path)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				parts = append(parts, Part{part.role, file})
			}
			s := openStore(t)
			info, err := s.Import(t.Context(), ImportSpec{Next: Parts(parts...), Fingerprint: built.Fingerprint})
			if err != nil {
				t.Fatal(err)
			}
			if info.Properties["os"] != "busybox" || info.Split != (spec.Split || spec.Squashfs) {
				t.Errorf("info = %+v", info)
			}
			target := filepath.Join(t.TempDir(), "out")
			if err := s.Unpack(t.Context(), info.Fingerprint, target, nil); err != nil {
				t.Fatal(err)
			}
			if link, err := os.Readlink(filepath.Join(target, "rootfs/bin/sh")); err != nil || link != "/bin/busybox" {
				t.Errorf("bin/sh = %q, %v", link, err)
			}
			files, err := Render(t.Context(), RenderSpec{
				Trigger: TriggerCreate, Metadata: metadataOf(t, target), TemplatesDir: filepath.Join(target, "templates"), Name: "c1",
			})
			if err != nil || len(files) != 2 || string(files[0].Content) != "c1\n" {
				t.Errorf("Render = %d files, %v; want two, the first c1", len(files), err)
			}
		})
	}
}

func metadataOf(t *testing.T, dir string) Metadata {
	t.Helper()
	m, err := ReadMetadata(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheSameBusyboxGivesTheSameImage(t *testing.T) {
	needsRoot(t)
	first, err := BuildBusybox(t.Context(), BusyboxSpec{OutDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	second, err := BuildBusybox(t.Context(), BusyboxSpec{OutDir: t.TempDir()})
	if err != nil || first.Fingerprint != second.Fingerprint {
		t.Errorf("fingerprints %s and %s, %v; want the same", first.Fingerprint, second.Fingerprint, err)
	}
}

func TestPublishKeepsWhatATreeHolds(t *testing.T) {
	needsRoot(t)
	tree := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o640))
	must(os.Chown(filepath.Join(tree, "file"), 100007, 100008))
	must(os.Link(filepath.Join(tree, "file"), filepath.Join(tree, "hard")))
	must(os.Symlink("/etc/passwd", filepath.Join(tree, "link")))
	must(unix.Mkfifo(filepath.Join(tree, "pipe"), 0o600))
	must(os.WriteFile(filepath.Join(tree, "suid"), nil, 0o600))
	sparse, err := os.Create(filepath.Join(tree, "sparse"))
	must(err)
	must(sparse.Truncate(10 << 20))
	must(sparse.Close())
	must(unix.Setxattr(filepath.Join(tree, "file"), "user.note", []byte("kept"), 0))
	for _, name := range []string{"", "link", "pipe", "suid", "sparse"} {
		must(os.Lchown(filepath.Join(tree, name), 100000, 100000))
	}
	// After the owner: a change of owner takes the bit away.
	must(os.Chmod(filepath.Join(tree, "suid"), 0o755|os.ModeSetuid))
	s := openStore(t)
	ids := []IDRange{{Inside: 0, Outside: 100000, Size: 65536}}
	info, err := s.Publish(t.Context(), PublishSpec{
		RootFS: tree, IDs: IDMap{UIDs: ids, GIDs: ids}, Metadata: Metadata{Architecture: "x86_64", CreationDate: 1}, Compression: Zstd,
	})
	must(err)
	out := filepath.Join(t.TempDir(), "out")
	must(s.Unpack(t.Context(), info.Fingerprint, out, nil))
	root := filepath.Join(out, "rootfs")
	var stat, hard unix.Stat_t
	must(unix.Stat(filepath.Join(root, "file"), &stat))
	must(unix.Stat(filepath.Join(root, "hard"), &hard))
	if stat.Uid != 7 || stat.Gid != 8 || stat.Ino != hard.Ino {
		t.Errorf("file is %d:%d, inode %d; hard link has inode %d; want 7:8 and the same", stat.Uid, stat.Gid, stat.Ino, hard.Ino)
	}
	note := make([]byte, 16)
	if count, err := unix.Getxattr(filepath.Join(root, "file"), "user.note", note); err != nil || string(note[:count]) != "kept" {
		t.Errorf("user.note = %q, %v", note[:max(count, 0)], err)
	}
	must(unix.Stat(filepath.Join(root, "sparse"), &stat))
	if stat.Size != 10<<20 || stat.Blocks > 64 {
		t.Errorf("sparse file has %d bytes in %d blocks; want 10 MiB in few", stat.Size, stat.Blocks)
	}
	must(unix.Stat(filepath.Join(root, "suid"), &stat))
	if stat.Mode&0o7777 != 0o4755 {
		t.Errorf("suid has mode %o; want 4755", stat.Mode&0o7777)
	}
}

func TestADamagedImageIsNotUnpacked(t *testing.T) {
	needsRoot(t)
	s := openStore(t)
	info, err := s.Import(t.Context(), ImportSpec{Next: Parts(Part{RoleUnified, bytes.NewReader(tarOf(t, meta(), dir("rootfs")))})})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(info.Fingerprint), []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := s.Unpack(t.Context(), info.Fingerprint, out, nil); !errors.Is(err, state.ErrConflict) {
		t.Errorf("Unpack = %v; want a conflict that says how to mend it", err)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("the target was made: %v", err)
	}
}

func TestTemplatesCannotReachTheHost(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"include": `{% include "/etc/passwd" %}`, "ssi": `{% ssi "/etc/passwd" %}`, "extends": `{% extends "/etc/passwd" %}`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Render(t.Context(), RenderSpec{Trigger: TriggerStart, TemplatesDir: folder, Metadata: Metadata{
			Templates: map[string]Template{"/x": {When: []Trigger{TriggerStart}, Template: name}},
		}})
		if !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: Render = %v; want a refusal", name, err)
		}
	}
}

func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(goodMetadata))
	f.Add([]byte("templates:\n  /etc/x:\n    when: [create]\n    template: x.tpl\narchitecture: arm64\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMetadata(data)
		if err != nil {
			return
		}
		encoded, err := m.Encode()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if _, err := ParseMetadata(encoded); err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, encoded)
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("\x1f\x8b garbage"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := openStore(t)
		if _, err := s.Import(t.Context(), ImportSpec{Next: Parts(Part{RoleUnified, bytes.NewReader(data)})}); err != nil && onDisk(t, s) != 0 {
			t.Errorf("a refused import left files: %v", err)
		}
	})
}
