package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/storage/mount"
	"muster/state"
)

// A disk device whose source is a block device with a file system, or that has
// raw.mount.options, is mounted on the machine first, and the instance gets that mount. It
// stays there until the instance has ended, since a reboot from inside needs it again.

// diskDir holds the mounts of all instances, disksOf those of one.
func (n *Node) diskDir() string { return filepath.Join(n.cfg.Dir, "disk-mounts") }

func (n *Node) disksOf(inst Instance) string { return filepath.Join(n.diskDir(), inst.HostName()) }

// hostMount is a disk device that shows a path of the machine.
func (n *Node) hostMount(ctx context.Context, inst Instance, name string, device map[string]string) (found runtime.Mount, present bool, err error) {
	found = runtime.Mount{
		Source:      device["source"],
		Path:        device["path"],
		ReadOnly:    isTrue(device["readonly"]),
		Recursive:   isTrue(device["recursive"]),
		Propagation: device["propagation"],
		Shift:       isTrue(device["shift"]),
	}
	info, err := os.Stat(found.Source)
	if errors.Is(err, fs.ErrNotExist) {
		if !required(device) {
			return found, false, nil
		}
		return found, false, state.Errorf(state.ErrInvalid,
			"device %q: source %q does not exist on this member; create it or set required=false", name, found.Source)
	}
	if err != nil {
		return found, false, state.Errorf(state.ErrInvalid, "device %q: %w", name, err)
	}
	block := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	options := device["raw.mount.options"]
	if !block && options == "" {
		return found, true, nil
	}
	if n.ids(inst) != nil {
		options = strings.TrimPrefix(options+",nodev", ",")
	}
	at, err := n.diskPlace(ctx, inst, name, block || info.IsDir())
	if err == nil {
		err = mountDisk(found, at, block, options)
	}
	if err != nil {
		return found, false, state.Errorf(state.ErrInvalid, "device %q: %w", name, err)
	}
	found.Source = at
	return found, true, nil
}

// diskPlace makes an empty place to mount a disk of the instance at.
func (n *Node) diskPlace(ctx context.Context, inst Instance, name string, directory bool) (string, error) {
	n.disksMu.Lock()
	defer n.disksMu.Unlock()
	base := n.diskDir()
	if err := os.Mkdir(base, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if there, err := mount.At(base); err != nil {
		return "", err
	} else if !there {
		// A mount of its own, so that what is mounted in it does not spread to the namespaces
		// of others.
		if err := mount.Bind(base, base, nil, mount.Flags{}); err != nil {
			return "", err
		}
	}
	// Files of another machine's users may be set-uid: nobody here but the instance's root
	// comes that far.
	own := n.disksOf(inst)
	if err := os.Mkdir(own, 0o100); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	owner := 0
	if ids := n.ids(inst); ids != nil {
		owner = int(ids.Host)
	}
	if err := os.Chown(own, owner, owner); err != nil {
		return "", err
	}
	at := filepath.Join(own, name)
	if err := n.dropDisk(ctx, at); err != nil {
		return "", err
	}
	if directory {
		return at, os.Mkdir(at, 0o755)
	}
	return at, os.WriteFile(at, nil, 0o644)
}

// dropDisk takes down what is mounted at a place, and the place. None is no error.
func (n *Node) dropDisk(ctx context.Context, at string) error {
	lazy, err := mount.Unmount(ctx, at)
	if err != nil {
		return err
	}
	if lazy {
		n.log.Warn("the mount of a disk device was busy and is only detached", "path", at)
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// dropDisks takes down all mounts of disk devices of an instance that does not run.
func (n *Node) dropDisks(ctx context.Context, inst Instance) error {
	own := n.disksOf(inst)
	entries, err := os.ReadDir(own)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed error
	for _, entry := range entries {
		failed = errors.Join(failed, n.dropDisk(ctx, filepath.Join(own, entry.Name())))
	}
	if failed != nil {
		return failed
	}
	if err := os.Remove(own); err != nil {
		return err
	}
	return n.dropDiskDir(ctx)
}

// dropDiskDir takes the directory for all instances down when none has a mount in it.
func (n *Node) dropDiskDir(ctx context.Context) error {
	n.disksMu.Lock()
	defer n.disksMu.Unlock()
	if entries, err := os.ReadDir(n.diskDir()); err != nil || len(entries) > 0 {
		return nil // nobody has one, or somebody else has
	}
	return n.dropDisk(ctx, n.diskDir())
}

// mountFlags are the options of mount(8) that are flags of mount(2); those that take one
// away have it below zero.
var mountFlags = map[string]int{
	"defaults": 0, "rw": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "auto": 0, "noauto": 0, "nouser": 0,
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "lazytime": unix.MS_LAZYTIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
}

// mountDisk mounts a source of the machine at an empty place.
func mountDisk(m runtime.Mount, at string, block bool, options string) error {
	flags := uintptr(0)
	var data []string
	for option := range strings.SplitSeq(options, ",") {
		option = strings.TrimSpace(option)
		if option == "" {
			continue
		}
		if flag, known := mountFlags[option]; known {
			flags |= uintptr(flag)
		} else {
			data = append(data, option)
		}
	}
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if block {
		return mountBlock(m.Source, at, flags, strings.Join(data, ","))
	}
	if len(data) > 0 {
		return fmt.Errorf("raw.mount.options %q: for a path of the machine want flags such as ro, noexec and nosuid", strings.Join(data, ","))
	}
	bind := uintptr(unix.MS_BIND)
	if m.Recursive {
		bind |= unix.MS_REC
	}
	if err := unix.Mount(m.Source, at, "", bind, ""); err != nil {
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return errors.Join(fmt.Errorf("raw.mount.options %q: %w", m.Source, err), unix.Unmount(at, unix.MNT_DETACH))
	}
	return nil
}

// commonTypes are tried first, whether the kernel has them in memory by now or not.
var commonTypes = []string{"ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs3", "squashfs", "erofs", "iso9660", "udf"}

// mountBlock mounts the file system of a block device, of whatever type it is.
func mountBlock(device, at string, flags uintptr, data string) error {
	types := slices.Clone(commonTypes)
	if more, err := blockTypes(); err == nil {
		for _, name := range more {
			if !slices.Contains(types, name) {
				types = append(types, name)
			}
		}
	}
	var refused error
	for _, name := range types {
		err := unix.Mount(device, at, name, flags, data)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
			err = unix.Mount(device, at, name, flags|unix.MS_RDONLY, data)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV):
			// Another type, or one that this kernel does not have; with data, maybe the right one
			// that does not know an option.
		default:
			refused = errors.Join(refused, fmt.Errorf("%s: %w", name, err))
		}
	}
	if refused != nil {
		return fmt.Errorf("mount %s: %w", device, refused)
	}
	if data != "" {
		return fmt.Errorf("mount %s: it has no file system that this member knows and that takes raw.mount.options %q", device, data)
	}
	return fmt.Errorf("mount %s: it has no file system that this member knows", device)
}

// blockTypes are the types of file systems on block devices that the kernel has in memory.
func blockTypes() ([]string, error) {
	file, err := os.Open("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var types []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, found := strings.CutPrefix(lines.Text(), "\t"); found && !strings.HasPrefix(name, "fuse") {
			types = append(types, name)
		}
	}
	return types, nil
}
