package lxc

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/inside"
	"muster/state"
)

// addMount shows a path of the host in a running container: the mount is made
// here, detached, and then put in place from within the container's mounts, so
// neither side walks a path of the other.
func addMount(c *container, spec runtime.Spec, mount runtime.Mount) error {
	var stat unix.Stat_t
	if err := unix.Stat(mount.Source, &stat); err != nil {
		if mount.Optional && errors.Is(err, unix.ENOENT) {
			return nil
		}
		return state.Errorf(state.ErrInvalid, "disk source %s: %w", mount.Source, err)
	}
	tree, err := detachedMount(c, spec, mount)
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", mount.Source, mount.Path, err)
	}
	defer func() { _ = tree.Close() }()
	directory := stat.Mode&unix.S_IFMT == unix.S_IFDIR
	err = inside.OnThread(func() error {
		if err := inside.EnterMounts(c.init.fd()); err != nil {
			return err
		}
		root, err := os.Open("/")
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }()
		if spec.IDMap != nil {
			// What is made on the way belongs to the container's root.
			if err := inside.ActAs(spec.IDMap.Host, spec.IDMap.Host, true); err != nil {
				return err
			}
		}
		target, err := inside.MakeTarget(root, mount.Path, directory)
		if err != nil {
			return err
		}
		defer func() { _ = target.Close() }()
		return unix.MoveMount(int(tree.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
	if errors.Is(err, unix.ENOTDIR) {
		return state.Errorf(state.ErrConflict, "disk %s: one of source and path is a directory and the other is not", mount.Path)
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", mount.Source, mount.Path, err)
	}
	return nil
}

// propagationFlags are those of mount(2).
var propagationFlags = map[string]uint64{
	"": unix.MS_PRIVATE, "private": unix.MS_PRIVATE, "shared": unix.MS_SHARED,
	"slave": unix.MS_SLAVE, "unbindable": unix.MS_UNBINDABLE,
}

// detachedMount clones the mount of a source, with the container's wishes.
func detachedMount(c *container, spec runtime.Spec, mount runtime.Mount) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if mount.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, mount.Source, flags)
	if err != nil {
		return nil, err
	}
	tree := os.NewFile(uintptr(fd), mount.Source)
	attr := unix.MountAttr{}
	if mount.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	recursive := uint(0)
	if mount.Recursive {
		recursive = unix.AT_RECURSIVE
	}
	name, deep := strings.CutPrefix(mount.Propagation, "r")
	if deep && propagationFlags[name] == 0 {
		name = mount.Propagation
	}
	attr.Propagation = propagationFlags[name]
	if mount.Shift && spec.IDMap != nil {
		users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", c.init.pid))
		if err != nil {
			return nil, errors.Join(err, tree.Close())
		}
		defer func() { _ = users.Close() }()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(users.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, &attr); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// removeMount unmounts what addMount or liblxc mounted. What the container has
// unmounted itself is gone already.
func removeMount(c *container, path string) error {
	return removeAt(c, path, nil)
}

// removeAt unmounts a path of the container and calls after, both within the
// container's mounts: only the container's own can be reached there, by any path.
func removeAt(c *container, path string, after func() error) error {
	err := inside.OnThread(func() error {
		if err := inside.EnterMounts(c.init.fd()); err != nil {
			return err
		}
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if after == nil {
			return nil
		}
		return after()
	})
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
