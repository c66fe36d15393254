package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnableQuota switches quota groups on for the file system of dir and waits
// until they have counted what is there. On already is no error.
func EnableQuota(dir string) error {
	args := struct{ cmd, status uint64 }{cmd: quotaCtlEnable}
	if err := onDir(dir, iocQuotaCtl, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("enable quota on %s: %w", dir, err)
	}
	if err := onDir(dir, iocRescanWait, nil); err != nil {
		return fmt.Errorf("count for the quota on %s: %w", dir, err)
	}
	return nil
}

// SetLimit limits the bytes that the subvolume refers to; zero lifts the limit.
// Quota must be enabled.
func SetLimit(dir string, id uint64, limit int64) error {
	// struct btrfs_ioctl_qgroup_limit_args; all bits set clears a limit.
	args := struct{ qgroup, flags, maxRfer, maxExcl, rsvRfer, rsvExcl uint64 }{
		qgroup: id, flags: limitMaxRfer, maxRfer: ^uint64(0),
	}
	if limit > 0 {
		args.maxRfer = uint64(limit)
	}
	if err := onDir(dir, iocQgroupLimit, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("limit the subvolume %d: %w", id, err)
	}
	return nil
}

// ErrNoQuota means that quota groups are off.
var ErrNoQuota = errors.New("quota groups are not enabled")

// Quota is what the quota group of a subvolume counts and allows.
type Quota struct {
	Referenced int64 // bytes, those shared with snapshots included
	Exclusive  int64 // bytes that removing the subvolume would free
	Limit      int64 // bytes of Referenced; zero is no limit
}

// QuotaOf returns the quota group of the subvolume with this ID.
func QuotaOf(dir string, id uint64) (Quota, error) {
	var q Quota
	found := false
	err := search(dir, quotaTree, 0, qgroupInfoKey, id, id, func(_, _ uint64, item []byte) error {
		if len(item) < 40 {
			return errors.New("a quota group's count is too short")
		}
		found = true
		q.Referenced = int64(binary.LittleEndian.Uint64(item[8:]))
		q.Exclusive = int64(binary.LittleEndian.Uint64(item[24:]))
		return nil
	})
	if errors.Is(err, unix.ENOENT) || err == nil && !found {
		return Quota{}, ErrNoQuota
	}
	if err != nil {
		return Quota{}, fmt.Errorf("read the quota of the subvolume %d: %w", id, err)
	}
	err = search(dir, quotaTree, 0, qgroupLimitKey, id, id, func(_, _ uint64, item []byte) error {
		if len(item) < 16 {
			return errors.New("a quota group's limit is too short")
		}
		if binary.LittleEndian.Uint64(item)&limitMaxRfer != 0 {
			q.Limit = max(0, int64(binary.LittleEndian.Uint64(item[8:])))
		}
		return nil
	})
	if err != nil {
		return Quota{}, fmt.Errorf("read the limit of the subvolume %d: %w", id, err)
	}
	return q, nil
}

// DropQuota removes the quota group of a subvolume that is gone. None there is
// no error.
func DropQuota(dir string, id uint64) error {
	args := struct{ create, qgroup uint64 }{qgroup: id}
	err := onDir(dir, iocQgroupCreate, unsafe.Pointer(&args))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("remove the quota group %d: %w", id, err)
	}
	return nil
}
