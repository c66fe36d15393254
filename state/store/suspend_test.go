package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// testDisk is an ext4 file system on a loop device.
type testDisk struct {
	t *testing.T
	// dir is where the file system is mounted.
	dir string
}

// newDisk makes a file system of so many bytes. A test without the right to is skipped.
func newDisk(t *testing.T, size int64) *testDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a file system needs root")
	}
	root := t.TempDir()
	d := &testDisk{t: t, dir: filepath.Join(root, "disk")}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(root, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", "-m", "0", image)
	run("mount", "-o", "loop", image, d.dir)
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

// fill leaves no room on it, until free is called.
func (d *testDisk) fill() (free func()) {
	d.t.Helper()
	ballast := filepath.Join(d.dir, "ballast")
	file, err := os.Create(ballast)
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			d.t.Error(err)
		}
	}
}

// waitFor waits until a claim holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute later it is not so that %s", what)
		}
	}
}

// A log that its disk refused is suspended, and is opened again on what it has when the
// disk is well: all that was acknowledged is there, also after the next start. That other
// members go on meanwhile, and that the log is the same as theirs afterwards, is shown by
// test/e2e: libdqlite does not let nodes come and go in a process that has several.
func TestAFullDiskForAWhile(t *testing.T) {
	d := newDisk(t, 160<<20)
	dir := filepath.Join(d.dir, "database")
	s := open(t, dir)
	var made []string
	write := func() {
		name := fmt.Sprintf("p%d", len(made))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Apply(ctx, CreateProfile{Profile: state.Profile{
			Project: state.DefaultProject, Name: name, Description: strings.Repeat("x", 20_000),
		}})
		if err == nil || strings.Contains(err.Error(), "exists") {
			made = append(made, name)
		}
	}
	for len(made) < 20 {
		write()
	}
	free := d.fill()
	waitFor(t, "it says that the disk can't be written", func() bool {
		if !s.Trouble().Broken {
			write()
		}
		return s.Trouble().Broken
	})
	if part, err := s.Part(t.Context()); s.Trouble().Broken && (err != nil || part != state.PartUsed) {
		t.Errorf("meanwhile its part is %s, %v; want %s", part, err, state.PartUsed)
	}
	free()
	waitFor(t, "it takes part again", func() bool { return s.Trouble() == (state.Trouble{}) && s.seat.Load() != nil })
	for before := len(made); len(made) < before+20; {
		write()
	}
	for range 2 {
		for _, name := range made {
			if _, err := s.View().Profile(state.DefaultProject, name); err != nil {
				t.Fatalf("what was acknowledged is gone: %v", err)
			}
		}
		consistent(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
}
