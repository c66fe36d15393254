package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/inside"
	"muster/node/runtime/lxc/wire"
)

// container is one boot of a container, as a proxy reaches into it: by
// descriptors taken when it was found, so that no number can come to mean
// another process.
type container struct {
	request wire.ProxyRequest
	boots   int
	init    *os.File // pidfd
	root    *os.File // O_PATH of its root directory
	net     *os.File // its network namespace
}

// findContainer opens the container that runs now.
func findContainer(request wire.ProxyRequest) (*container, error) {
	text, err := os.ReadFile(filepath.Join(request.Run, wire.State))
	if err != nil {
		return nil, err
	}
	state, err := wire.ParseState(string(text))
	if err != nil {
		return nil, err
	}
	c := &container{request: request, boots: state.Boots}
	pidfd, err := unix.PidfdOpen(state.Init.Number, 0)
	if err != nil {
		return nil, fmt.Errorf("the container's init: %w", err)
	}
	c.init = os.NewFile(uintptr(pidfd), "init")
	for _, part := range []struct {
		name string
		file **os.File
		flag int
	}{{"root", &c.root, unix.O_PATH | unix.O_DIRECTORY}, {"ns/net", &c.net, unix.O_RDONLY}} {
		path := fmt.Sprintf("/proc/%d/%s", state.Init.Number, part.name)
		fd, err := unix.Open(path, part.flag|unix.O_CLOEXEC, 0)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		*part.file = os.NewFile(uintptr(fd), path)
	}
	// Still alive, so the paths above were its own.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		c.close()
		return nil, fmt.Errorf("the container's init: %w", err)
	}
	return c, nil
}

func (c *container) close() {
	for _, file := range []*os.File{c.init, c.root, c.net} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// next waits until this boot has ended and returns the next, if there is one.
func (c *container) next() (*container, bool) {
	ended := c.wait()
	// Before anything else: what is held of the old namespaces keeps the kernel
	// from taking them down.
	c.close()
	for ended {
		monitor, err := wire.Holder(filepath.Join(c.request.Run, wire.Monitor))
		if err != nil || monitor == 0 {
			break
		}
		next, err := findContainer(c.request)
		if err == nil && next.boots != c.boots {
			return next, true
		}
		if err == nil {
			next.close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, false
}

// wait returns true when init has ended.
func (c *container) wait() bool {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(c.init.Fd()), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// listen listens inside the container.
func (c *container) listen(at runtime.Endpoint, proxy runtime.Proxy) (listener net.Listener, err error) {
	err = inside.OnThread(func() error {
		if at.Network == "unix" && at.Address[0] != '@' {
			listener, err = c.listenPath(at.Address, proxy)
			return err
		}
		if err := unix.Setns(int(c.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		listener, err = net.Listen(at.Network, at.Address)
		return err
	})
	return listener, err
}

// listenPath makes a socket in the container's file system, as the container's
// root would: the files of another owner can't be made through an idmapped
// mount. No link of the container leads out, since the kernel resolves the path
// below its root.
func (c *container) listenPath(path string, proxy runtime.Proxy) (net.Listener, error) {
	dir, err := inside.Resolve(c.root, filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	var base uint32
	if c.request.IDMap != nil {
		base = c.request.IDMap.Host
	}
	if err := inside.ActAs(base, base, true); err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	var stat unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
		// A container that has just booted listens on nothing: it is left over.
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
			return nil, err
		}
	}
	old := unix.Umask(int(0o777 &^ socketMode(proxy)))
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	// The path is only good while dir is open.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := unix.Fchownat(int(dir.Fd()), name, int(base+proxy.UID), int(base+proxy.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// dial connects inside the container.
func (c *container) dial(to runtime.Endpoint, proxy runtime.Proxy) (conn net.Conn, err error) {
	if to.Network == "unix" && to.Address[0] != '@' {
		socket, err := inside.Resolve(c.root, to.Address, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = socket.Close() }()
		// The descriptor is the socket itself, whatever the path means by now.
		at := runtime.Endpoint{Network: "unix", Address: fmt.Sprintf("/proc/self/fd/%d", socket.Fd())}
		return dialAs(at, proxy)
	}
	err = inside.OnThread(func() error {
		if err := unix.Setns(int(c.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		conn, err = net.DialTimeout(to.Network, to.Address, dialTimeout)
		return err
	})
	return conn, err
}
