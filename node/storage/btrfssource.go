package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage/btrfs"
	"muster/node/storage/mount"
	"muster/state"
)

// A btrfs pool's source is a loop file that we make, a block device that we
// format, or a directory on a btrfs file system that somebody else keeps.

// loopFile is where the pool's own file would be.
func (d *btrfsDriver) loopFile() string { return filepath.Join(d.pool.disks, d.pool.name+".img") }

func (d *btrfsDriver) source() string {
	if source := d.pool.setting("source"); source != "" {
		return source
	}
	return d.loopFile()
}

// kindOf tells what the source is: its type bits, with a missing loop file of
// our own counting as a file.
func (d *btrfsDriver) kindOf() (fs.FileMode, error) {
	info, err := os.Stat(d.source())
	if errors.Is(err, fs.ErrNotExist) && d.source() == d.loopFile() {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Mode().Type(), nil
}

func (d *btrfsDriver) check(ctx context.Context) error {
	p := d.pool
	if !hasFileSystem(driverBtrfs) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: the kernel has no btrfs; load the module btrfs, or use driver overlay or dir", p.name)
	}
	kind, err := d.kindOf()
	if errors.Is(err, fs.ErrNotExist) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: source %s does not exist; give a block device or a directory on btrfs, or leave source out", p.name, d.source())
	}
	if err != nil {
		return err
	}
	switch {
	case kind.IsDir():
		if p.setting("size") != "" {
			return state.Errorf(state.ErrInvalid, "storage pool %s: size is for a loop file; leave it out with the source %s", p.name, d.source())
		}
		return d.checkDir()
	case kind == fs.ModeDevice:
		if p.setting("size") != "" {
			return state.Errorf(state.ErrInvalid, "storage pool %s: size is for a loop file; leave it out with the source %s", p.name, d.source())
		}
		if err := d.checkTool(ctx); err != nil {
			return err
		}
		return d.checkDevice()
	case d.source() == d.loopFile():
		if err := d.checkTool(ctx); err != nil {
			return err
		}
		return d.checkLoop()
	}
	return state.Errorf(state.ErrInvalid, "storage pool %s: source %s is neither a block device nor a directory on btrfs; leave source out for a loop file", p.name, d.source())
}

func (d *btrfsDriver) checkTool(ctx context.Context) error {
	if _, err := mkfsVersion(ctx); err != nil {
		return state.Errorf(state.ErrInvalid, "storage pool %s: mkfs.btrfs is missing; install the package btrfs-progs", d.pool.name)
	}
	return nil
}

func (d *btrfsDriver) checkDir() error {
	on, err := btrfs.Is(d.source())
	if err != nil {
		return err
	}
	if !on {
		return state.Errorf(state.ErrInvalid, "storage pool %s: source %s is not on btrfs; use driver overlay or dir, or leave source out", d.pool.name, d.source())
	}
	return checkEmptyDir(d.pool, d.source())
}

// checkDevice refuses a device that is in use or has something on it.
func (d *btrfsDriver) checkDevice() error {
	dev, err := openExclusively(d.source())
	if errors.Is(err, unix.EBUSY) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: device %s is in use", d.pool.name, d.source())
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.source(), err)
	}
	defer unix.Close(dev)
	// mkfs.btrfs refuses what it recognizes as well; a partition table or an
	// unknown file system is more than we want to guess about.
	start := make([]byte, 1<<20)
	n, err := unix.Pread(dev, start, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.source(), err)
	}
	if len(bytes.Trim(start[:n], "\x00")) > 0 {
		return state.Errorf(state.ErrInvalid, "storage pool %s: device %s has data on it; if nobody needs that, clear it with wipefs -a and zero its first MiB", d.pool.name, d.source())
	}
	return nil
}

// openExclusively opens a device that nobody uses. One that has just been unmounted
// is in use for a moment longer when a process started meanwhile had copied the
// mounts.
func openExclusively(device string) (int, error) {
	for tries := 0; ; tries++ {
		dev, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EBUSY) || tries == 10 {
			return dev, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (d *btrfsDriver) checkLoop() error {
	p := d.pool
	if exists(d.loopFile()) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: its loop file %s is there already; move it away", p.name, d.loopFile())
	}
	size, err := d.loopSize()
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(existingParent(d.loopFile()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", p.disks, err)
	}
	// The file is sparse, but a pool larger than its disk is a mistake.
	if total := int64(st.Blocks) * st.Bsize; size > total {
		return state.Errorf(state.ErrInvalid, "storage pool %s: size %d is larger than the disk of %s, which has %d bytes", p.name, size, p.disks, total)
	}
	return nil
}

func existingParent(path string) string {
	for !exists(path) {
		path = filepath.Dir(path)
	}
	return path
}

// loopSize is the configured size, or a fifth of the free space between 5 and
// 30 GiB (LXD documents this default).
func (d *btrfsDriver) loopSize() (int64, error) {
	if size := d.pool.setting("size"); size != "" {
		return state.ParseSize(size)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(existingParent(d.loopFile()), &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", d.pool.disks, err)
	}
	fifth := int64(st.Bavail) * st.Bsize / 5
	return min(max(fifth>>30, 5), 30) << 30, nil
}

func (d *btrfsDriver) provision(ctx context.Context) (state.Config, error) {
	p := d.pool
	p.mu.Lock()
	config := maps.Clone(p.config)
	p.mu.Unlock()
	kind, err := d.kindOf()
	if err != nil {
		return nil, err
	}
	config["source"] = d.source()
	if kind.IsDir() {
		return config, nil
	}
	if kind != fs.ModeDevice {
		size, err := d.loopSize()
		if err != nil {
			return nil, err
		}
		if config["size"] == "" {
			config["size"] = strconv.FormatInt(size>>20, 10) + "MiB"
		}
		if err := makeSparse(d.loopFile(), size); err != nil {
			return nil, err
		}
	}
	return config, d.format(ctx)
}

func (d *btrfsDriver) format(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "mkfs.btrfs", "--quiet", "--label", "muster-"+short(d.pool.name), "--", d.source())
	// It must not outlive a daemon that is killed: the next one would undo
	// and repeat the creation under its hands. The signal is tied to the
	// thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.btrfs %s: %w: %s", d.source(), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// short fits a name into a label of btrfs.
func short(name string) string { return name[:min(len(name), 200)] }

func makeSparse(path string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func (d *btrfsDriver) attach(context.Context) error {
	p := d.pool
	if err := os.Mkdir(p.root, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	kind, err := d.kindOf()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !exists(d.source()) {
		return state.Errorf(state.ErrUnavailable, "storage pool %s: its source %s is not there", p.name, d.source())
	}
	if err != nil {
		return err
	}
	if kind.IsDir() {
		return mount.Bind(d.source(), p.root, nil, mount.Flags{})
	}
	device := d.source()
	if kind != fs.ModeDevice {
		loop, err := attachLoop(d.loopFile())
		if err != nil {
			return err
		}
		// The mount holds the device from here on, and the kernel frees it
		// with the mount.
		defer loop.Close()
		device = loop.Name()
	}
	flags, data, err := d.options(p.setting("btrfs.mount_options"))
	if err != nil {
		return err
	}
	if err := unix.Mount(device, p.root, driverBtrfs, flags, data); err != nil {
		if errors.Is(err, unix.EINVAL) && p.setting("btrfs.mount_options") != "" {
			return state.Errorf(state.ErrInvalid, "storage pool %s: btrfs cannot be mounted with the options %q: %w", p.name, p.setting("btrfs.mount_options"), err)
		}
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return mount.Private(p.root)
}

// options adds what containers expect: the root of one may remove subvolumes
// that it made.
func (d *btrfsDriver) options(value string) (uintptr, string, error) {
	flags, data, err := parseMountOptions(value)
	if err != nil {
		return 0, "", state.Errorf(state.ErrInvalid, "storage pool %s: btrfs.mount_options: %w", d.pool.name, err)
	}
	return flags, strings.TrimSuffix("user_subvol_rm_allowed,"+data, ","), nil
}

// attachLoop connects a file to a free loop device, which the kernel frees
// again when nobody has it open or mounted.
func attachLoop(path string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("find a loop device: %w", err)
	}
	defer control.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
	// Between asking and taking, somebody else may take the device.
	for deadline := time.Now().Add(5 * time.Second); ; {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err == nil {
			if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
				return device, nil
			}
			device.Close()
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return nil, fmt.Errorf("attach %s to loop device %d: %w", path, n, err)
		}
	}
}

func (d *btrfsDriver) update(_ context.Context, config state.Config) error {
	p := d.pool
	if options := config["btrfs.mount_options"]; options != p.setting("btrfs.mount_options") {
		flags, data, err := d.options(options)
		if err != nil {
			return err
		}
		if err := unix.Mount("", p.root, "", flags|unix.MS_REMOUNT, data); err != nil {
			return state.Errorf(state.ErrInvalid, "storage pool %s: btrfs cannot be mounted with the options %q: %w", p.name, options, err)
		}
	}
	if config["size"] == p.setting("size") {
		return nil
	}
	if d.source() != d.loopFile() {
		return state.Errorf(state.ErrInvalid, "storage pool %s: size is for a loop file; the source is %s", p.name, d.source())
	}
	if config["size"] == "" {
		return state.Errorf(state.ErrInvalid, "storage pool %s: size can't be taken away: it is that of the loop file, %s; give the same or a larger one", p.name, p.setting("size"))
	}
	size, err := state.ParseSize(config["size"])
	if err != nil {
		return err
	}
	return d.grow(size)
}

// grow enlarges the loop file, its device and the file system.
func (d *btrfsDriver) grow(size int64) error {
	p := d.pool
	info, err := os.Stat(d.loopFile())
	if err != nil {
		return err
	}
	if size < info.Size() {
		return state.Errorf(state.ErrInvalid, "storage pool %s: a loop file cannot shrink; it has %d bytes", p.name, info.Size())
	}
	if err := os.Truncate(d.loopFile(), size); err != nil {
		return err
	}
	mounts, err := mount.Table(p.root)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Path != p.root {
			continue
		}
		device, err := os.OpenFile(m.Source, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0)
		device.Close()
		if err != nil {
			return fmt.Errorf("enlarge %s: %w", m.Source, err)
		}
	}
	return btrfs.Grow(p.root)
}

func (d *btrfsDriver) destroy(context.Context) error {
	kind, err := d.kindOf()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case kind.IsDir():
		return nil
	case kind == fs.ModeDevice:
		return d.forget()
	case d.source() == d.loopFile():
		if err := os.Remove(d.loopFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// The folder is shared with other pools; it goes with the last.
		_ = os.Remove(d.pool.disks)
	}
	return nil
}

// forget clears our file system's signature off a device, so that the device
// counts as empty again.
func (d *btrfsDriver) forget() error {
	device, err := os.OpenFile(d.source(), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	const superblock = 64 << 10 // and its copy; btrfs(5)
	label := make([]byte, 4096)
	if _, err := device.ReadAt(label, superblock); err != nil {
		return err
	}
	if !bytes.Contains(label, []byte("muster-"+short(d.pool.name))) {
		return nil // not ours: Create never came so far
	}
	for _, at := range []int64{superblock, 64 << 20} {
		if _, err := device.WriteAt(make([]byte, 4096), at); err != nil && at == superblock {
			return err
		}
	}
	return device.Sync()
}
