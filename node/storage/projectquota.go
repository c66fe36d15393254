package storage

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
	"muster/state"
)

// Limits of dir and overlay volumes are project quotas (quotactl(2)): ext4 and
// xfs have them when mounted with prjquota.

// ifDqblk is struct if_dqblk of linux/quota.h.
type ifDqblk struct {
	hardBlocks, softBlocks uint64 // of 1024 bytes
	space                  uint64 // bytes
	hardInodes, softInodes uint64
	inodes                 uint64
	blockTime, inodeTime   uint64
	valid                  uint32
	_                      uint32
}

const (
	projectQuota = 2        // PRJQUOTA
	getQuota     = 0x800007 // Q_GETQUOTA
	setQuotaCmd  = 0x800008 // Q_SETQUOTA
	blockLimits  = 1        // QIF_BLIMITS
)

func projectQuotaCall(dir string, command uintptr, project uint32, block *ifDqblk) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), command<<8|projectQuota, uintptr(project), uintptr(unsafe.Pointer(block)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hasProjectQuota reports whether the file system of dir enforces them.
func hasProjectQuota(dir string) bool {
	err := projectQuotaCall(dir, getQuota, 0, &ifDqblk{})
	// xfs knows no quota for a project that has no file.
	return err == nil || errors.Is(err, unix.ENOENT)
}

// projectUsage returns what a project takes and may take.
func projectUsage(dir string, project uint32) (Usage, error) {
	var block ifDqblk
	if err := projectQuotaCall(dir, getQuota, project, &block); err != nil && !errors.Is(err, unix.ENOENT) {
		return Usage{}, fmt.Errorf("read the quota of project %d: %w", project, err)
	}
	return Usage{Used: int64(block.space), Limit: int64(block.hardBlocks) << 10}, nil
}

func limitProject(dir string, project uint32, bytes int64) error {
	block := ifDqblk{hardBlocks: uint64(bytes+1023) >> 10, valid: blockLimits}
	if err := projectQuotaCall(dir, setQuotaCmd, project, &block); err != nil {
		return fmt.Errorf("limit project %d: %w", project, err)
	}
	return nil
}

// dropProject lets go of a project whose files are gone.
func dropProject(dir string, project uint32) error {
	if err := limitProject(dir, project, 0); err != nil && hasProjectQuota(dir) {
		return err
	}
	return nil
}

// newProject returns a project ID that nobody on the file system uses. IDs are
// random because the file system may serve others, another muster among them.
func newProject(dir string) (uint32, error) {
	for range 100 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		id := binary.NativeEndian.Uint32(b[:])>>1 | 1<<24
		var block ifDqblk
		err := projectQuotaCall(dir, getQuota, id, &block)
		if errors.Is(err, unix.ENOENT) || err == nil && block.inodes == 0 && block.hardBlocks == 0 {
			return id, nil
		}
		if err != nil {
			return 0, fmt.Errorf("find a free project: %w", err)
		}
	}
	return 0, errors.New("find a free project: all that were tried are in use")
}

// noQuota refuses a limit that the pool cannot keep.
func (p *Pool) noQuota() error {
	return state.Errorf(state.ErrInvalid,
		"storage pool %s (driver %s) cannot limit the size of a volume: its file system has no project quota; use a pool of driver btrfs, or one on ext4 or xfs mounted with prjquota", p.name, p.driverName)
}

func (d *dirDriver) limit(_ context.Context, path string) (int64, error) {
	project, err := tree.Project(filepath.Join(path, nameRootFS))
	if err != nil || project == 0 || !d.pool.Features().ProjectQuota {
		return 0, err
	}
	usage, err := projectUsage(d.pool.root, project)
	return usage.Limit, err
}

func (d *dirDriver) setQuota(_ context.Context, path string, bytes int64) error {
	if !d.pool.Features().ProjectQuota {
		if bytes == 0 {
			return nil
		}
		return d.pool.noQuota()
	}
	rootfs := filepath.Join(path, nameRootFS)
	project, err := tree.Project(rootfs)
	if err != nil || project == 0 && bytes == 0 {
		return err
	}
	if project == 0 {
		if project, err = newProject(d.pool.root); err != nil {
			return err
		}
		if err := tree.SetProject(rootfs, project); err != nil {
			return err
		}
	}
	return limitProject(d.pool.root, project, bytes)
}

func (d *overlayDriver) limit(ctx context.Context, path string) (int64, error) {
	c, err := readChain(path)
	if err != nil {
		return 0, err
	}
	if c == nil {
		return d.dirDriver.limit(ctx, path)
	}
	if c.Project == 0 || !d.pool.Features().ProjectQuota {
		return 0, nil
	}
	usage, err := projectUsage(d.pool.root, c.Project)
	return usage.Limit, err
}

func (d *overlayDriver) setQuota(ctx context.Context, path string, bytes int64) error {
	c, err := readChain(path)
	if err != nil {
		return err
	}
	if c == nil {
		return d.dirDriver.setQuota(ctx, path, bytes)
	}
	if !d.pool.Features().ProjectQuota {
		if bytes == 0 {
			return nil
		}
		return d.pool.noQuota()
	}
	if c.Project == 0 {
		if bytes == 0 {
			return nil
		}
		if c.Project, err = newProject(d.pool.root); err != nil {
			return err
		}
		if c.Upper != nil {
			if err := tree.SetProject(d.pool.in(dirLayers, c.Upper.ID), c.Project); err != nil {
				return err
			}
		}
		if err := writeChain(path, c); err != nil {
			return err
		}
	}
	return limitProject(d.pool.root, c.Project, bytes)
}
