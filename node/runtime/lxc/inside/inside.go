// Package inside acts within a container's namespaces from a program of many
// threads: on a thread that ends afterwards, or through descriptors.
//
// It never follows a path of a container out of that container, and never leaves
// a changed thread behind.
package inside

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread of its own, which ends afterwards: what f does to
// the thread's namespaces and rights touches nothing else.
func OnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread can't end, and /proc/self shows it. While it is
			// locked here, f gets another.
			defer runtime.UnlockOSThread()
			done <- OnThread(f)
			return
		}
		// Never unlocked, so the thread ends with the goroutine.
		done <- f()
	}()
	return <-done
}

// ActAs makes the files that the thread creates belong to uid and gid. With
// keepRights it keeps the capabilities over files that the kernel takes away
// with that. Call it within OnThread.
func ActAs(uid, gid uint32, keepRights bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		return fmt.Errorf("read the thread's capabilities: %w", err)
	}
	// Neither call reports failure but by what it returns next time.
	if _, err := unix.SetfsgidRetGid(int(gid)); err != nil {
		return err
	}
	if _, err := unix.SetfsuidRetUid(int(uid)); err != nil {
		return err
	}
	if !keepRights {
		return nil
	}
	if err := unix.Capset(&header, &before[0]); err != nil {
		return fmt.Errorf("keep the thread's capabilities: %w", err)
	}
	return nil
}

// EnterMounts moves the thread into the mount namespace of the process that
// pidfd names; its root is that namespace's root then. Call it within OnThread.
func EnterMounts(pidfd int) error {
	// Threads of a process share root and working directory; this one must not.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the thread's root: %w", err)
	}
	if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the container's mounts: %w", err)
	}
	return nil
}

// Resolve opens a path below root without acting on what it finds (O_PATH).
// Links are followed as if root were "/"; those of /proc are not.
func Resolve(root *os.File, name string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// MakeTarget returns the directory or empty file at a path below root, and makes
// what of it is missing, as the thread's user.
func MakeTarget(root *os.File, name string, directory bool) (*os.File, error) {
	if found, err := Resolve(root, name, 0); err == nil {
		return found, nil
	}
	parts := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	at, err := Resolve(root, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	for i, part := range parts {
		last := i == len(parts)-1
		here := strings.Join(parts[:i+1], "/")
		next, err := Resolve(root, here, 0)
		if err != nil {
			if !last || directory {
				err = unix.Mkdirat(int(at.Fd()), part, 0o755)
			} else {
				err = makeFile(int(at.Fd()), part)
			}
			if err == nil {
				next, err = Resolve(root, here, 0)
			}
		}
		_ = at.Close()
		if err != nil {
			return nil, fmt.Errorf("make %s in the container: %w", name, err)
		}
		at = next
	}
	return at, nil
}

func makeFile(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
