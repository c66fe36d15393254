package tree_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
)

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	noError(t, unix.Lstat(path, &st))
	return st
}

// Exactness is the contract of package storage, whose dir driver copies with
// this package. Here is what only shows up in a single file.
func TestCopyKeepsHoles(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(src, "holes"))
	noError(t, err)
	for _, at := range []int64{0, 10 << 20, 30 << 20} {
		_, err := f.WriteAt([]byte(fmt.Sprint(at)), at)
		noError(t, err)
	}
	noError(t, f.Truncate(50<<20))
	noError(t, f.Close())
	noError(t, tree.Copy(t.Context(), dst, src, tree.Options{}))
	want, err := os.ReadFile(filepath.Join(src, "holes"))
	noError(t, err)
	got, err := os.ReadFile(filepath.Join(dst, "holes"))
	noError(t, err)
	if string(got) != string(want) {
		t.Error("the copy differs")
	}
	if st := stat(t, filepath.Join(dst, "holes")); st.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes", st.Blocks*512)
	}
}

func TestCopyLeavesOutAttributes(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	file := filepath.Join(src, "file")
	noError(t, os.WriteFile(file, nil, 0o600))
	for _, name := range []string{"user.keep", "user.drop"} {
		if err := unix.Setxattr(file, name, []byte("x"), 0); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("needs a temporary directory with user attributes")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	noError(t, tree.Copy(t.Context(), dst, src, tree.Options{SkipXattr: func(name string) bool { return name == "user.drop" }}))
	attrs, err := tree.Xattrs(filepath.Join(dst, "file"))
	noError(t, err)
	if attrs["user.keep"] != "x" || attrs["user.drop"] != "" {
		t.Errorf("the copy has %v", attrs)
	}
}

// The owner of a tree may try to lead a copy out of it: a directory becomes a
// link while it is read. The copy must end, and hold nothing from outside.
func TestCopyOfAHostileTree(t *testing.T) {
	outside := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	src := t.TempDir()
	swap := filepath.Join(src, "swap")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// The errors are those of the race we make.
			_ = os.Mkdir(swap, 0o755)
			_ = os.WriteFile(filepath.Join(swap, "inner"), []byte("x"), 0o600)
			_ = os.Remove(filepath.Join(swap, "inner"))
			_ = os.Remove(swap)
			_ = os.Symlink(outside, swap)
			_ = os.Remove(swap)
			_ = os.Symlink(filepath.Join(outside, "secret"), swap)
			_ = os.Remove(swap)
			_ = unix.Mkfifo(swap, 0o600)
			_ = os.Remove(swap)
			_ = os.WriteFile(swap, []byte("plain"), 0o600)
			_ = os.Remove(swap)
		}
	}()
	kinds := map[string]int{}
	for i := range 2000 {
		dst := filepath.Join(t.TempDir(), fmt.Sprint(i))
		noError(t, os.Mkdir(dst, 0o755))
		if err := tree.Copy(t.Context(), dst, src, tree.Options{Live: true}); err != nil {
			t.Errorf("copy %d: %v", i, err)
			break
		}
		info, err := os.Lstat(filepath.Join(dst, "swap"))
		if err != nil {
			kinds["none"]++
			continue
		}
		kinds[info.Mode().Type().String()]++
		noError(t, filepath.WalkDir(dst, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "secret") {
					t.Errorf("%s holds %q (%v)", path, data, err)
				}
			}
			return err
		}))
	}
	close(stop)
	<-stopped
	t.Logf("copied as: %v", kinds)
}

func TestCopyEndsWithItsContext(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	noError(t, os.Mkdir(filepath.Join(src, "dir"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tree.Copy(ctx, dst, src, tree.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Copy = %v, want context.Canceled", err)
	}
}

func TestRemoveOfFrozenFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: immutable files")
	}
	dir := filepath.Join(t.TempDir(), "tree")
	noError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	noError(t, os.WriteFile(filepath.Join(dir, "sub", "file"), nil, 0o600))
	for _, path := range []string{filepath.Join(dir, "sub", "file"), filepath.Join(dir, "sub")} {
		f, err := os.Open(path)
		noError(t, err)
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10)
		f.Close()
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
			t.Skip("needs a temporary directory with immutable files")
		}
		noError(t, err)
	}
	noError(t, tree.Remove(dir))
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is still there: %v", err)
	}
	noError(t, tree.Remove(dir))
}

func TestSizeCountsAFileOnce(t *testing.T) {
	dir := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600))
	one, err := tree.Size(t.Context(), dir)
	noError(t, err)
	for i := range 5 {
		noError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, fmt.Sprint(i))))
	}
	many, err := tree.Size(t.Context(), dir)
	noError(t, err)
	if one < 1<<20 || one != many {
		t.Errorf("one name: %d bytes, six names: %d", one, many)
	}
}
