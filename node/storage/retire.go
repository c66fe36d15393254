package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"muster/node/storage/mount"
	"muster/state"
)

// With the last mount of an overlay the kernel syncs the whole file system
// below it, other containers' data included: seconds on a busy disk. A container
// that stops must not wait for that, so its mount is moved out of the way, which
// takes no time, and taken down beside everything else. Whoever needs it really
// gone waits (rest).

// retire takes the mount in a slot out of the way.
func (p *Pool) retire(ctx context.Context, content, slot string) error {
	target := filepath.Join(slot, nameRootFS)
	if there, err := mount.At(target); err != nil || !there {
		return err
	}
	grave := p.in(dirMounts, dirGone, rand.Text())
	if err := os.Mkdir(grave, 0o700); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return p.unmountPath(ctx, target) // slower, and without room
	} else if err != nil {
		return err
	}
	if err := unix.Mount(target, grave, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the mount %s away: %w", target, err)
	}
	gone := make(chan struct{})
	p.mu.Lock()
	p.retired[content] = gone
	p.mu.Unlock()
	clean := context.WithoutCancel(ctx) // the caller does not wait
	p.retiring.Go(func() {
		if err := p.unmountPath(clean, grave); err != nil {
			p.log.Warn("a mount stays until the next start", "path", grave, "error", err)
		} else if err := os.Remove(grave); err != nil {
			p.log.Warn("a mount point stays until the next start", "path", grave, "error", err)
		}
		p.mu.Lock()
		if p.retired[content] == gone {
			delete(p.retired, content)
		}
		p.mu.Unlock()
		close(gone)
	})
	return nil
}

// rest waits until the last mount of a content is really gone.
func (p *Pool) rest(ctx context.Context, content string) error {
	p.mu.Lock()
	gone := p.retired[content]
	p.mu.Unlock()
	if gone == nil {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return state.Errorf(state.ErrUnavailable, "waiting for the last mount of %s to end: %w", content, ctx.Err())
	}
}
