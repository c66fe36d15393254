package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"muster/state"
)

func TestImagesThatAreRefusedLeaveNothing(t *testing.T) {
	withMetadata := func(text string) []tar.Header {
		return []tar.Header{{Typeflag: tar.TypeReg, Name: "metadata.yaml", Linkname: text}, dir("rootfs")}
	}
	in := func(headers ...tar.Header) []tar.Header {
		return append([]tar.Header{meta(), dir("rootfs")}, headers...)
	}
	for name, tc := range map[string]struct {
		headers []tar.Header
		want    string
	}{
		"an entry that climbs out":               {in(file("rootfs/../../etc/passwd")), `"rootfs/../../etc/passwd": its name leaves`},
		"an entry that climbs and comes back":    {in(file("rootfs/a/../b")), `leaves the image by ".."`},
		"a type nobody knows":                    {in(tar.Header{Typeflag: 'Z', Name: "rootfs/a"}), "no type that an image may hold"},
		"an entry below a symbolic link":         {in(symlink("rootfs/x", "/etc"), file("rootfs/x/passwd")), `below "rootfs/x", which is a symbolic link`},
		"an entry far below a symbolic link":     {in(symlink("rootfs/x", "/"), file("rootfs/x/y/z")), "symbolic link"},
		"an entry below a file":                  {in(file("rootfs/x"), file("rootfs/x/y")), "not a directory"},
		"an entry below a hard link to a link":   {in(symlink("rootfs/x", "/etc"), hardlink("rootfs/y", "rootfs/x"), file("rootfs/y/passwd")), "symbolic link"},
		"a root file system that is a link":      {[]tar.Header{meta(), symlink("rootfs", "/etc"), file("rootfs/passwd")}, "not a directory"},
		"a root file system that becomes a link": {in(symlink("rootfs", "/etc")), "twice"},
		"a directory that becomes a link":        {in(dir("rootfs/etc"), symlink("rootfs/etc", "/etc")), "twice"},
		"a directory that is made on the way":    {in(file("rootfs/etc/passwd"), symlink("rootfs/etc", "/etc")), "twice"},
		"a file that becomes a directory":        {in(file("rootfs/a"), dir("rootfs/a")), "twice"},
		"a hard link to what is outside":         {in(hardlink("rootfs/x", "metadata.yaml")), "outside"},
		"a hard link that climbs out":            {in(hardlink("rootfs/x", "rootfs/../../etc/shadow")), `".."`},
		"a hard link to what is not there":       {in(hardlink("rootfs/x", "rootfs/y")), "no file before it"},
		"a hard link to a directory":             {in(dir("rootfs/d"), hardlink("rootfs/x", "rootfs/d")), "no file before it"},
		"a hard link to itself":                  {in(file("rootfs/x"), hardlink("rootfs/x", "rootfs/x")), "no file before it"},
		"an absolute entry that climbs":          {in(file("/rootfs/../etc/passwd")), `leaves the image by ".."`},
		"an absolute hard link":                  {in(hardlink("rootfs/x", "/etc/shadow")), "outside"},
		"a device of an impossible number":       {in(tar.Header{Typeflag: tar.TypeBlock, Name: "rootfs/sda", Devmajor: 1 << 12}), "impossible number"},
		"an entry below a device":                {in(tar.Header{Typeflag: tar.TypeChar, Name: "rootfs/dev/null", Devmajor: 1, Devminor: 3}, file("rootfs/dev/null/x")), "not a directory"},
		"a device as metadata":                   {[]tar.Header{{Typeflag: tar.TypeChar, Name: "metadata.yaml", Devmajor: 1, Devminor: 3}, dir("rootfs")}, "not a regular file"},
		"a device among the templates":           {in(tar.Header{Typeflag: tar.TypeChar, Name: "templates/x", Devmajor: 1, Devminor: 3}), "not a regular file"},
		"a name of too many bytes":               {in(file("rootfs/" + strings.Repeat("d/", 2000) + "x")), "too long"},
		"a part of a name of too many bytes":     {in(file("rootfs/" + strings.Repeat("d", 256))), "longer than 255"},
		"an owner that no system has":            {in(tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/x", Uid: 1 << 33}), "owner out of range"},
		"a broken access list":                   {in(tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/x", PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_access": "rwx"}}), "no POSIX ACL"},
		"broken file capabilities":               {in(tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/x", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "all"}}), "capability"},
		"no metadata":                            {[]tar.Header{dir("rootfs"), file("rootfs/a")}, "holds no metadata.yaml"},
		"metadata twice":                         {in(meta()), "twice"},
		"metadata that are a link":               {[]tar.Header{symlink("metadata.yaml", "/etc/shadow"), dir("rootfs")}, "not a regular file"},
		"no root file system":                    {[]tar.Header{meta()}, "no rootfs directory"},
		"the disk of a virtual machine":          {[]tar.Header{meta(), file("rootfs.img")}, "virtual machine"},
		"the qcow2 of a virtual machine":         {[]tar.Header{meta(), file("disk.qcow2")}, "virtual machine"},
		"no architecture":                        {withMetadata("creation_date: 1\n"), "architecture is missing"},
		"an unknown architecture":                {withMetadata("architecture: pdp11\ncreation_date: 1\n"), `"pdp11"`},
		"metadata that are no YAML":              {withMetadata("a: [b"), "not valid YAML"},
		"metadata that are not text":             {withMetadata("architecture: \xff\n"), "not text"},
		"metadata without end":                   {withMetadata("architecture: x86_64\n" + strings.Repeat("#", MaxMetadata)), "at most 65536"},
		"metadata that multiply":                 {withMetadata("architecture: x86_64\nproperties:\n  a: &a x\n  b: *a\n"), "line 3"},
		"a template that is missing":             {withMetadata("architecture: x86_64\ntemplates:\n  /etc/hosts:\n    when: [start]\n    template: hosts.tpl\n"), "no templates/hosts.tpl"},
		"a template that leaves its folder":      {withMetadata("architecture: x86_64\ntemplates:\n  /etc/hosts:\n    when: [start]\n    template: ../metadata.yaml\n"), "name of a file in templates/"},
		"a template for a path that climbs":      {withMetadata("architecture: x86_64\ntemplates:\n  /../etc/hosts:\n    when: [start]\n    template: a\n"), "want an absolute path"},
		"templates that are symbolic links":      {in(symlink("templates/x", "/etc/shadow")), "not a regular file"},
		"a template without end":                 {in(tar.Header{Typeflag: tar.TypeReg, Name: "templates/x", Linkname: strings.Repeat("x", maxTemplate+1)}), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			for _, c := range []Compression{None, Gzip} {
				_, err := importOf(t.Context(), s, unified(compressed(t, tarOf(t, tc.headers...), c)))
				if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Import (%s) = %v; want an invalid image and %q", c, err, tc.want)
				}
				wantNothingHeld(t, s)
			}
		})
	}
}

func TestUploadsThatAreNoImageLeaveNothing(t *testing.T) {
	metadata, rootfs := tarOf(t, meta()), tarOf(t, dir("./"), file("./etc/x"))
	whole := tarOf(t, meta(), dir("rootfs"))
	many := []tar.Header{meta(), dir("rootfs")}
	for i := range 50 {
		many = append(many, file(fmt.Sprint("rootfs/", i)))
	}
	for name, tc := range map[string]struct {
		next func() (Part, error)
		want string
	}{
		"nothing":                              {Parts(), "no image file"},
		"an empty file":                        {unified(nil), "is empty"},
		"one byte":                             {unified([]byte("x")), "cut off"},
		"words":                                {unified([]byte(strings.Repeat("words ", 1000))), "neither a tarball"},
		"zeros":                                {unified(make([]byte, 4096)), "empty tarball"},
		"a disk of a virtual machine":          {unified([]byte("QFI\xfb" + strings.Repeat("\x00", 1000))), "qcow2"},
		"a disk as root file system":           {split(metadata, []byte("QFI\xfb")), "qcow2"},
		"a squashfs as a unified image":        {unified([]byte("hsqs" + strings.Repeat("\x00", 1000))), "only the root file system"},
		"a squashfs of a few bytes":            {split(metadata, []byte("hsqs")), "cut off"},
		"a squashfs of nothing":                {split(metadata, []byte("hsqs"+strings.Repeat("\x00", 1000))), "version 0"},
		"gzip of garbage":                      {unified([]byte("\x1f\x8bgarbage")), "gzip data"},
		"zstd of garbage":                      {unified([]byte("\x28\xb5\x2f\xfdgarbage and more of it")), "zstd data"},
		"xz of garbage":                        {unified([]byte("\xfd7zXZ\x00garbage")), "xz data"},
		"bzip2 of garbage":                     {unified([]byte("BZh9garbage")), "bzip2 data"},
		"gzip with something behind":           {unified(append(compressed(t, whole, Gzip), "more"...)), "gzip data"},
		"metadata alone":                       {Parts(Part{RoleMetadata, bytes.NewReader(metadata)}), "no root file system"},
		"a root file system alone":             {Parts(Part{RoleRootFS, bytes.NewReader(rootfs)}), "no metadata file"},
		"metadata twice":                       {Parts(Part{RoleMetadata, bytes.NewReader(metadata)}, Part{RoleMetadata, bytes.NewReader(metadata)}), "twice"},
		"a whole image and another part":       {Parts(Part{RoleUnified, bytes.NewReader(whole)}, Part{RoleRootFS, bytes.NewReader(rootfs)}), "and another part"},
		"a part of an unknown role":            {Parts(Part{"kernel", bytes.NewReader(whole)}), "unknown image part"},
		"a whole image as metadata":            {split(whole, rootfs), "of its own"},
		"a root file system that climbs":       {split(metadata, tarOf(t, file("./../x"))), `".."`},
		"a root file system of nothing":        {split(metadata, tarOf(t)), "empty tarball"},
		"more entries than are allowed":        {unified(tarOf(t, many...)), "more than 40 entries"},
		"more bytes than are allowed":          {unified(compressed(t, tarOf(t, meta(), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/zeros", Linkname: strings.Repeat("\x00", 2<<20)}), Gzip)), "more than the 1048576 bytes"},
		"more bytes than are allowed in parts": {unified(tarOf(t, meta(), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/a", Linkname: strings.Repeat("x", 600<<10)}, tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/b", Linkname: strings.Repeat("x", 600<<10)})), "reached at"},
		"a line that breaks between parts": {func() func() (Part, error) {
			first := Parts(Part{RoleMetadata, bytes.NewReader(metadata)})
			return func() (Part, error) {
				part, err := first()
				if errors.Is(err, io.EOF) {
					err = errors.New("connection reset")
				}
				return part, err
			}
		}(), "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, func(c *Config) { c.MaxUnpacked, c.MaxEntries = 1<<20, 40 })
			_, err := importOf(t.Context(), s, tc.next)
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Import = %v; want an invalid image and %q", err, tc.want)
			}
			wantNothingHeld(t, s)
		})
	}
}

// A bomb of nothing but headers has no bytes in files; it ends all the same.
func TestABombOfTrailingZerosEnds(t *testing.T) {
	data := append(tarOf(t, meta(), dir("rootfs")), make([]byte, 100<<20)...)
	s := openStore(t, func(c *Config) { c.MaxUnpacked = 1 << 20 })
	_, err := importOf(t.Context(), s, unified(compressed(t, data, Zstd)))
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "more than is allowed") {
		t.Errorf("Import = %v; want it refused for what it unpacks to", err)
	}
	wantNothingHeld(t, s)
}

func TestTruncatedUploadsLeaveNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(random.IntN(256))
	}
	plain := tarOf(t, meta(), dir("rootfs"), file("rootfs/a"),
		tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/noise", Linkname: string(noise)}, file("rootfs/b"))
	for _, c := range []Compression{None, Gzip, Zstd, XZ, Bzip2} {
		t.Run(string(c), func(t *testing.T) {
			whole := compressed(t, plain, c)
			s := openStore(t)
			offsets := []int{0, 1, 2, 5, 6, 100, 511, 512, 513, 1024, len(whole) - 1, len(whole) - 2, len(whole) - 4, len(whole) - 8}
			for at := 700; at < len(whole); at += 1 + len(whole)/40 {
				offsets = append(offsets, at)
			}
			for _, at := range offsets {
				// The first block of zeros ends a tarball; what follows it may
				// be missing.
				if c == None && at >= len(whole)-512 {
					continue
				}
				if _, err := importOf(t.Context(), s, unified(whole[:at])); !errors.Is(err, state.ErrInvalid) {
					t.Errorf("cut at %d of %d: Import = %v; want an invalid upload", at, len(whole), err)
				}
				broken := io.MultiReader(bytes.NewReader(whole[:at]), iotest.ErrReader(errors.New("connection reset")))
				_, err := importOf(t.Context(), s, Parts(Part{RoleUnified, broken}))
				if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("broke off after %d bytes: connection reset", at)) && at >= sniffed {
					t.Errorf("broken at %d of %d: Import = %v; want it to say so", at, len(whole), err)
				}
				wantNothingHeld(t, s)
			}
			if _, err := importOf(t.Context(), s, unified(whole)); err != nil {
				t.Errorf("the whole image: %v", err)
			}
		})
	}
}

func TestATruncatedSquashfsLeavesNothing(t *testing.T) {
	needsProgram(t, "unsquashfs")
	out := t.TempDir()
	built, err := BuildBusybox(t.Context(), BusyboxSpec{OutDir: out, Squashfs: true})
	must(t, err)
	metadata, err := os.ReadFile(built.Metadata)
	must(t, err)
	rootfs, err := os.ReadFile(built.RootFS)
	must(t, err)
	s := openStore(t)
	// The last block is filled up with zeros.
	for at := 4; at < len(rootfs)-4096; at += len(rootfs) / 20 {
		if _, err := importOf(t.Context(), s, split(metadata, rootfs[:at])); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("cut at %d of %d: Import = %v; want an invalid upload", at, len(rootfs), err)
		}
		wantNothingHeld(t, s)
	}
}

func TestAnUploadThatIsGivenUpLeavesNothing(t *testing.T) {
	s := openStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	body := io.MultiReader(bytes.NewReader(tarOf(t, meta(), dir("rootfs"))[:2048]), readerFunc(func([]byte) (int, error) {
		cancel(gone)
		return 0, errors.New("read on a closed body")
	}))
	if _, err := importOf(ctx, s, Parts(Part{RoleUnified, body})); !errors.Is(err, gone) {
		t.Errorf("Import = %v; want why its context ended", err)
	}
	wantNothingHeld(t, s)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A bad entry ends an upload at once: the rest of it is never read.
func TestABadEntryEndsTheUpload(t *testing.T) {
	s := openStore(t)
	bad := tarOf(t, meta(), file("rootfs/../x"))
	endless := io.MultiReader(bytes.NewReader(bad[:len(bad)-1024]), readerFunc(func(p []byte) (int, error) { return len(p), nil }))
	if _, err := importOf(t.Context(), s, Parts(Part{RoleUnified, endless})); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), `".."`) {
		t.Errorf("Import = %v; want the entry named", err)
	}
	wantNothingHeld(t, s)
}

func TestTheFingerprintIsChecked(t *testing.T) {
	data := tarOf(t, meta(), dir("rootfs"))
	sum := sha256.Sum256(data)
	right := hex.EncodeToString(sum[:])
	for name, tc := range map[string]struct {
		want, message string
	}{
		"the right one":              {right, ""},
		"the right one in capitals":  {strings.ToUpper(right), ""},
		"none":                       {"", ""},
		"another":                    {strings.Repeat("0", 64), "the image hashes to " + right},
		"a part of one":              {right[:12], "64 hex digits"},
		"something that is not hex":  {strings.Repeat("z", 64), "64 hex digits"},
		"something to leave the dir": {"../../../../etc/passwd", "64 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			info, err := s.Import(t.Context(), ImportSpec{Next: unified(data), Fingerprint: tc.want})
			if tc.message != "" {
				if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.message) {
					t.Errorf("Import = %v; want %q", err, tc.message)
				}
				wantNothingHeld(t, s)
			} else if err != nil || info.Fingerprint != right {
				t.Errorf("Import = %q, %v; want %q", info.Fingerprint, err, right)
			}
		})
	}
}

func TestSplitPartsMayComeInAnyOrder(t *testing.T) {
	metadata, rootfs := compressed(t, tarOf(t, meta()), Gzip), compressed(t, tarOf(t, file("etc/x")), Zstd)
	sum := sha256.Sum256(append(bytes.Clone(metadata), rootfs...))
	want := hex.EncodeToString(sum[:])
	for name, next := range map[string]func() (Part, error){
		"metadata first":         split(metadata, rootfs),
		"root file system first": Parts(Part{RoleRootFS, bytes.NewReader(rootfs)}, Part{RoleMetadata, bytes.NewReader(metadata)}),
	} {
		s := openStore(t)
		info, err := importOf(t.Context(), s, next)
		if err != nil || info.Fingerprint != want || !info.Split || info.Size != int64(len(metadata)+len(rootfs)) {
			t.Errorf("%s: Import = %+v, %v; want %s, split", name, info, err, want)
		}
		if err := s.Verify(t.Context(), want); err != nil {
			t.Errorf("%s: Verify = %v", name, err)
		}
	}
}

func TestImportSaysWhatTheImageIs(t *testing.T) {
	text := "architecture: arm64\ncreation_date: 1700000000\nexpiry_date: \"1800000000\"\nproperties:\n  release: 22.10\n  n: 007\n" +
		"templates:\n  /etc/hostname:\n    when: [create, copy]\n    create_only: true\n    template: hostname.tpl\n    properties: {a: 1}\n"
	data := tarOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "./metadata.yaml", Linkname: text}, dir("./templates/"), file("./templates/hostname.tpl"), dir("./rootfs/"))
	s := openStore(t)
	var seen []int64
	info, err := s.Import(t.Context(), ImportSpec{Next: Parts(Part{RoleUnified, iotest.HalfReader(bytes.NewReader(data))}), Progress: func(n int64) { seen = append(seen, n) }})
	must(t, err)
	stored, err := s.Info(t.Context(), info.Fingerprint)
	must(t, err)
	for what, got := range map[string]Info{"Import": info, "Info": stored} {
		if got.Architecture != "aarch64" || got.CreatedAt.Unix() != 1700000000 || got.ExpiresAt.Unix() != 1800000000 || got.Type != "container" ||
			got.Properties["release"] != "22.10" || got.Properties["n"] != "007" || got.Size != int64(len(data)) || got.Split ||
			!got.Templates["/etc/hostname"].CreateOnly || got.Templates["/etc/hostname"].Properties["a"] != "1" {
			t.Errorf("%s = %+v", what, got)
		}
	}
	if len(seen) < 2 || seen[len(seen)-1] != int64(len(data)) {
		t.Errorf("progress was told %v; want it to grow to %d", seen, len(data))
	}
}

// Two clients that upload the same image at once both succeed, and so do others.
func TestImportsAtOnce(t *testing.T) {
	s := openStore(t)
	var group errgroup.Group
	for i := range 24 {
		group.Go(func() error {
			name := fmt.Sprint("rootfs/", i%3)
			info, err := importOf(t.Context(), s, unified(compressed(t, tarOf(t, meta(), file(name)), Gzip)))
			if err != nil {
				return err
			}
			if i%4 == 0 {
				if _, err := s.Reconcile(t.Context(), nil); err != nil {
					return err
				}
			}
			return s.Verify(t.Context(), info.Fingerprint)
		})
	}
	must(t, group.Wait())
	if got := held(t, s); len(got) != 3 {
		t.Errorf("the store holds %v; want three images", got)
	}
}

func TestAFullDiskFreesWhatItHeld(t *testing.T) {
	noise := make([]byte, 6<<20)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	data := tarOf(t, meta(), dir("rootfs"), tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/noise", Linkname: string(noise)})
	for name, reserve := range map[string]int64{"the device is full": -1, "the reserve is reached": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, "5m")
			s := openStore(t, func(c *Config) { c.Dir, c.Reserve = filepath.Join(disk, "images"), reserve })
			before := used(t, disk)
			_, err := importOf(t.Context(), s, unified(data))
			if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "free some space") {
				t.Errorf("Import = %v; want a conflict that says what helps", err)
			}
			if after := used(t, disk); after != before {
				t.Errorf("%d bytes are taken on the disk, %d before", after, before)
			}
			if _, err := importOf(t.Context(), s, unified(tarOf(t, meta(), dir("rootfs")))); reserve < 0 && err != nil {
				t.Errorf("a small image afterwards: %v", err)
			}
		})
	}
}

func FuzzImport(f *testing.F) {
	for _, c := range []Compression{None, Gzip, Zstd} {
		f.Add(compressed(f, tarOf(f, meta(), dir("rootfs"), file("rootfs/a"), symlink("rootfs/b", "a"), hardlink("rootfs/c", "rootfs/a")), c))
	}
	f.Add([]byte("hsqs"))
	s := openStore(f, func(c *Config) { c.MaxUnpacked, c.MaxEntries = 16<<20, 10_000 })
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := importOf(t.Context(), s, unified(data))
		if err != nil {
			if !errors.Is(err, state.ErrInvalid) {
				t.Errorf("an upload was refused without a kind: %v", err)
			}
			wantNothingHeld(t, s)
			return
		}
		if os.Geteuid() == 0 {
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Unpack(t.Context(), info.Fingerprint, out, nil); err != nil {
				t.Errorf("what was taken in can't be unpacked: %v", err)
			}
		}
		must(t, s.Delete(t.Context(), info.Fingerprint))
	})
}
