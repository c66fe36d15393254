// Package btrfs speaks the ioctl language of a btrfs file system: subvolumes,
// snapshots, what is nested in them, quota groups and growth.
//
// It never runs a command and never decides anything: it does one step on one
// subvolume and reports the kernel's error. Layouts and numbers are those of
// linux/btrfs.h and linux/btrfs_tree.h.
package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl numbers, as the generic encoding of linux/ioctl.h yields them.
const (
	write   = 1 << 30
	read    = 2 << 30
	magic   = 0x94 << 8
	page    = 4096 << 16 // most arguments are padded to this size
	sixteen = 16 << 16
	eight   = 8 << 16

	iocResize       = write | page | magic | 3
	iocTreeSearch   = read | write | page | magic | 17
	iocInoLookup    = read | write | page | magic | 18
	iocSnapCreate   = write | page | magic | 23
	iocSubvolCreate = write | page | magic | 24
	iocGetFlags     = read | eight | magic | 25
	iocSetFlags     = write | eight | magic | 26
	iocQuotaCtl     = read | write | sixteen | magic | 40
	iocQgroupCreate = write | sixteen | magic | 42
	iocQgroupLimit  = read | 48<<16 | magic | 43
	iocRescanWait   = magic | 46
	iocSnapDestroy  = write | page | magic | 63
	iocSync         = magic | 8
)

const (
	readOnly         = 1 << 1 // BTRFS_SUBVOL_RDONLY
	specByID         = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID
	limitMaxRfer     = 1 << 0 // BTRFS_QGROUP_LIMIT_MAX_RFER
	firstFree        = 256    // BTRFS_FIRST_FREE_OBJECTID, the root of a subvolume
	rootTree         = 1
	quotaTree        = 8
	rootRefKey       = 156
	qgroupInfoKey    = 242
	qgroupLimitKey   = 244
	quotaCtlEnable   = 1
	volArgsNameLen   = 4040
	searchBufferSize = 3992
)

// volArgs is struct btrfs_ioctl_vol_args_v2.
type volArgs struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [volArgsNameLen]byte
}

// Is reports whether path is on a btrfs file system.
func Is(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return uint32(st.Type) == unix.BTRFS_SUPER_MAGIC, nil
}

// IsSubvolume reports whether path is the root of a subvolume. A path that does
// not exist is none.
func IsSubvolume(path string) (bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Ino == firstFree && st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// Create makes an empty subvolume, owned by root, mode 0700.
func Create(path string) error {
	var args volArgs
	copy(args.name[:volArgsNameLen-1], filepath.Base(path))
	if err := onDir(filepath.Dir(path), iocSubvolCreate, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("make the subvolume %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("make the subvolume %s: %w", path, err)
	}
	return nil
}

// Snapshot makes a writable snapshot, called name in the directory dir, of the
// subvolume src; both are open. Subvolumes inside src are empty directories in
// it.
func Snapshot(src, dir int, name string) error {
	args := volArgs{fd: int64(src)}
	copy(args.name[:volArgsNameLen-1], name)
	if err := ioctl(dir, iocSnapCreate, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("make the snapshot %s: %w", name, err)
	}
	return nil
}

// ReadOnly reports whether the open subvolume is read-only.
func ReadOnly(subvolume int) (bool, error) {
	var flags uint64
	if err := ioctl(subvolume, iocGetFlags, unsafe.Pointer(&flags)); err != nil {
		return false, fmt.Errorf("read the flags of a subvolume: %w", err)
	}
	return flags&readOnly != 0, nil
}

// SetReadOnly makes the open subvolume read-only, or writable again.
func SetReadOnly(subvolume int, on bool) error {
	var flags uint64
	if err := ioctl(subvolume, iocGetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("read the flags of a subvolume: %w", err)
	}
	wanted := flags &^ readOnly
	if on {
		wanted |= readOnly
	}
	if wanted == flags {
		return nil
	}
	if err := ioctl(subvolume, iocSetFlags, unsafe.Pointer(&wanted)); err != nil {
		return fmt.Errorf("make a subvolume read-only (%v): %w", on, err)
	}
	return nil
}

// Destroy removes the subvolume with this ID from the file system that holds
// dir. It must not contain other subvolumes.
func Destroy(dir string, id uint64) error {
	args := volArgs{flags: specByID}
	binary.NativeEndian.PutUint64(args.name[:], id)
	if err := onDir(dir, iocSnapDestroy, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("remove the subvolume %d: %w", id, err)
	}
	return nil
}

// ID returns the ID of the subvolume that holds path.
func ID(path string) (uint64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("find the subvolume of %s: %w", path, err)
	}
	defer unix.Close(fd)
	return IDOf(fd)
}

// IDOf returns the ID of the subvolume that holds an open directory.
func IDOf(fd int) (uint64, error) {
	args := inoLookupArgs{objectid: firstFree}
	if err := ioctl(fd, iocInoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("find the subvolume of an open directory: %w", err)
	}
	return args.treeid, nil
}

// Nested is a subvolume inside another.
type Nested struct {
	ID uint64
	// Path is where it is, from the root of the outer subvolume.
	Path string
}

// inoLookupArgs is struct btrfs_ioctl_ino_lookup_args.
type inoLookupArgs struct {
	treeid   uint64
	objectid uint64
	name     [4080]byte
}

// NestedIn returns all subvolumes inside the one with this ID, at any depth,
// an outer one always before those inside it. dir is any directory of the file
// system.
func NestedIn(dir string, id uint64) ([]Nested, error) {
	var found []Nested
	err := search(dir, rootTree, id, rootRefKey, 0, ^uint64(0), func(_, child uint64, item []byte) error {
		// struct btrfs_root_ref: dirid, sequence, name_len, then the name.
		if len(item) < 18 {
			return errors.New("a reference to a subvolume is too short")
		}
		nameLen := int(binary.LittleEndian.Uint16(item[16:]))
		if len(item) < 18+nameLen {
			return errors.New("a reference to a subvolume is too short")
		}
		// The lookup yields the directory with a slash at its end.
		args := inoLookupArgs{treeid: id, objectid: binary.LittleEndian.Uint64(item)}
		if err := onDir(dir, iocInoLookup, unsafe.Pointer(&args)); err != nil {
			return err
		}
		folder, _, _ := bytes.Cut(args.name[:], []byte{0})
		found = append(found, Nested{ID: child, Path: string(folder) + string(item[18:18+nameLen])})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the subvolumes in %d: %w", id, err)
	}
	var all []Nested
	for _, n := range found {
		all = append(all, n)
		inner, err := NestedIn(dir, n.ID)
		if err != nil {
			return nil, err
		}
		for _, i := range inner {
			all = append(all, Nested{ID: i.ID, Path: n.Path + "/" + i.Path})
		}
	}
	return all, nil
}

// searchArgs is struct btrfs_ioctl_search_args.
type searchArgs struct {
	tree                     uint64
	minObjectid, maxObjectid uint64
	minOffset, maxOffset     uint64
	minTransid, maxTransid   uint64
	minType, maxType         uint32
	items                    uint32
	_                        uint32
	_                        [4]uint64
	buf                      [searchBufferSize]byte
}

// search calls each for every item of the tree with this object ID and key and
// an offset from first to last.
func search(dir string, tree, object uint64, key uint32, first, last uint64, each func(object, offset uint64, item []byte) error) error {
	const header = 32 // struct btrfs_ioctl_search_header
	for {
		args := searchArgs{
			tree: tree, minObjectid: object, maxObjectid: object, minType: key, maxType: key,
			minOffset: first, maxOffset: last, maxTransid: ^uint64(0), items: ^uint32(0),
		}
		if err := onDir(dir, iocTreeSearch, unsafe.Pointer(&args)); err != nil {
			return err
		}
		if args.items == 0 {
			return nil
		}
		at := 0
		for range args.items {
			offset := binary.NativeEndian.Uint64(args.buf[at+16:])
			size := int(binary.NativeEndian.Uint32(args.buf[at+28:]))
			at += header
			if err := each(object, offset, args.buf[at:at+size]); err != nil {
				return err
			}
			at += size
			first = offset + 1
		}
		if first == 0 || first > last {
			return nil
		}
	}
}

// Sync writes everything out and lets the kernel begin at once to free what
// removed subvolumes took.
func Sync(dir string) error {
	if err := onDir(dir, iocSync, nil); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Grow makes the file system mounted at dir use all of its (first) device.
func Grow(dir string) error {
	var args struct {
		fd   int64
		name [4088]byte
	}
	copy(args.name[:], "max")
	if err := onDir(dir, iocResize, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("grow %s: %w", dir, err)
	}
	return nil
}

func onDir(dir string, request uintptr, arg unsafe.Pointer) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ioctl(fd, request, arg)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
