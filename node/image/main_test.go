package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: filepath.Join(t.TempDir(), "images"), Reserve: -1}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sets owners of files")
	}
}

func needsProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs the program %s", name)
	}
}

// must stops a test at an error that is not its subject.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// held lists the files of the store, staging included.
func held(t testing.TB, s *Store) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(s.cfg.Dir, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && name != s.cfg.Dir && filepath.Base(name) != stagingDir {
			names = append(names, strings.TrimPrefix(name, s.cfg.Dir+"/"))
		}
		return err
	}))
	return names
}

func wantNothingHeld(t testing.TB, s *Store) {
	t.Helper()
	if left := held(t, s); len(left) > 0 {
		t.Errorf("the store holds %v; want nothing", left)
	}
}

const goodMetadata = "architecture: amd64\ncreation_date: 1700000000\nproperties:\n  os: test\n  release: 22.10\n"

// tarOf makes a tarball of headers; a regular file's Linkname is its content.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
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
		must(t, w.WriteHeader(&header))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func meta() tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: "metadata.yaml", Linkname: goodMetadata}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: "x"}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

// compressed packs data as this package does.
func compressed(t testing.TB, data []byte, c Compression) []byte {
	t.Helper()
	if c == Bzip2 {
		needsProgram(t, "bzip2")
	}
	var out bytes.Buffer
	w, err := compress(t.Context(), &out, c)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func unified(data []byte) func() (Part, error) {
	return Parts(Part{RoleUnified, bytes.NewReader(data)})
}

func split(metadata, rootfs []byte) func() (Part, error) {
	return Parts(Part{RoleMetadata, bytes.NewReader(metadata)}, Part{RoleRootFS, bytes.NewReader(rootfs)})
}

func importOf(ctx context.Context, s *Store, next func() (Part, error)) (Info, error) {
	return s.Import(ctx, ImportSpec{Next: next})
}

// run runs a program and gives its output to a failure.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	needsProgram(t, name)
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// smallDisk mounts a file system of a few megabytes for one test.
func smallDisk(t testing.TB, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	at := t.TempDir()
	must(t, unix.Mount("none", at, "tmpfs", 0, "size="+size))
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	return at
}

// used says how many bytes of a file system are taken.
func used(t testing.TB, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
