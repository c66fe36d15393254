package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/storage/btrfs"
	"muster/node/storage/mount"
)

// probe tries out what the file system of an attached pool can do. A kernel's
// version says little about it: what counts is the file system below.
func (p *Pool) probe(ctx context.Context) (features Features, err error) {
	dir, err := p.staged()
	if err != nil {
		return Features{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range []string{"lower", "lower2", "upper", "work", "at"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return Features{}, err
		}
	}
	lower, at := filepath.Join(dir, "lower"), filepath.Join(dir, "at")
	ids := Shift(1<<20, 1<<16)
	attempt := func(mountAt func() error) (bool, error) {
		if err := mountAt(); err != nil {
			p.log.Debug("a probe of the file system was refused", "error", err)
			return false, nil
		}
		_, err := mount.Unmount(ctx, at)
		return true, err
	}
	if features.IDMappedMounts, err = attempt(func() error { return bindRootFS(p, lower, at, nil, ids, false) }); err != nil {
		return features, err
	}
	features.Subvolumes, err = btrfs.Is(dir)
	if err != nil {
		return features, err
	}
	features.Reflink = reflinks(dir)
	features.ProjectQuota = p.driverName != driverBtrfs && hasProjectQuota(dir)
	if p.driverName != driverOverlay {
		return features, nil
	}
	overlay := func(lower string) error {
		o := overlayMount{lowers: []string{lower}, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
		return o.mount(p.name, at, 0)
	}
	if features.Overlay, err = attempt(func() error { return overlay(lower) }); err != nil {
		return features, err
	}
	if !features.IDMappedMounts {
		return features, nil
	}
	features.OverlayIDMap, err = attempt(func() error {
		mapped, done, err := p.mapped(lower, nil, ids)
		if err != nil {
			return err
		}
		return errors.Join(overlay(mapped), done())
	})
	return features, err
}

// reflinks reports whether files in dir can share blocks.
func reflinks(dir string) bool {
	a, err := os.Create(filepath.Join(dir, "a"))
	if err != nil {
		return false
	}
	defer a.Close()
	b, err := os.Create(filepath.Join(dir, "b"))
	if err != nil {
		return false
	}
	defer b.Close()
	if _, err := a.WriteString("shared"); err != nil {
		return false
	}
	return unix.IoctlFileClone(int(b.Fd()), int(a.Fd())) == nil
}

// Driver describes a kind of pool on this machine.
type Driver struct {
	Name    string
	Version string // of the kernel or tool that does the work
	// Problem says why the driver cannot be used here and what to do about
	// it; empty when it can.
	Problem string
}

// Drivers lists the kinds of pool that muster knows, the default first.
func Drivers(ctx context.Context) []Driver {
	kernel := kernelRelease()
	drivers := []Driver{
		{Name: driverOverlay, Version: kernel},
		{Name: driverDir, Version: "1"},
		{Name: driverBtrfs, Version: kernel},
	}
	if !hasFileSystem("overlay") {
		drivers[0].Problem = "the kernel has no overlayfs; load the module overlay, or use driver dir or btrfs"
	}
	if !hasFileSystem("btrfs") {
		drivers[2].Problem = "the kernel has no btrfs; load the module btrfs, or use driver overlay or dir"
	} else if version, err := mkfsVersion(ctx); err != nil {
		drivers[2].Problem = "mkfs.btrfs is missing; install the package btrfs-progs"
	} else {
		drivers[2].Version = version
	}
	return drivers
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// hasFileSystem reports whether the kernel knows a file system now. One that
// is a module is loaded by the first mount, so a module on disk counts too.
func hasFileSystem(name string) bool {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	found, err := filepath.Glob(fmt.Sprintf("/lib/modules/%s/kernel/fs/*/%s.ko*", kernelRelease(), name))
	return err == nil && len(found) > 0
}

// mkfsVersion asks mkfs.btrfs, whose answer is "mkfs.btrfs, part of btrfs-progs v6.2".
func mkfsVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "mkfs.btrfs", "--version").Output()
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(out))
	if len(fields) == 0 {
		return "unknown", nil
	}
	return strings.TrimPrefix(fields[len(fields)-1], "v"), nil
}
