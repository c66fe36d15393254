package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/inside"
	"muster/node/runtime/lxc/wire"
)

// proxy passes connections across a container's border until the container ends
// or SIGTERM comes. It answers "ready" on the socket once it listens.
func proxy() error {
	answer := os.NewFile(wire.Socket, "socket")
	stop, err := startProxy()
	text := "ready"
	if err != nil {
		text = "error " + err.Error()
	}
	if _, werr := answer.Write([]byte(text)); err == nil {
		err = werr
	}
	_ = answer.Close()
	if err != nil {
		return err
	}
	return stop()
}

// startProxy listens, and returns what waits for the end and closes.
func startProxy() (wait func() error, err error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	input, err := io.ReadAll(os.NewFile(wire.Input, "input"))
	if err != nil {
		return nil, err
	}
	var request wire.ProxyRequest
	if err := json.Unmarshal(input, &request); err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	lock, err := claim(request, input)
	if err != nil {
		return nil, err
	}
	where, err := findContainer(request)
	if err != nil {
		return nil, err
	}
	r := &relay{proxy: request.Proxy, container: where}
	if err := r.listen(); err != nil {
		r.close()
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.followReboots()
	}()
	return func() error {
		select {
		case <-signals:
		case <-ended:
		}
		r.close()
		// The lock ends with the file: not before the listeners are gone.
		return errors.Join(os.Remove(lock.Name()), lock.Close())
	}, nil
}

// claim writes the proxy's file and locks it for the life of this process.
func claim(request wire.ProxyRequest, input []byte) (*os.File, error) {
	path := wire.ProxyFile(request.Run, request.Proxy.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := wire.Lock(file)
	if err == nil && !ok {
		err = errors.New("another proxy of this name runs")
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt(input, 0)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// relay accepts on one side and connects on the other.
type relay struct {
	proxy runtime.Proxy

	// mu guards what changes when the container reboots.
	mu        sync.Mutex
	container *container
	listeners []net.Listener
	closed    bool
}

// listen opens all listeners, each with a goroutine that accepts; they end when
// the listener is closed.
func (r *relay) listen() error {
	for i, at := range r.proxy.Listen {
		to := r.proxy.Connect[min(i, len(r.proxy.Connect)-1)]
		var listener net.Listener
		var err error
		if r.proxy.InContainer {
			listener, err = r.container.listen(at, r.proxy)
		} else {
			listener, err = listenHost(at, r.proxy)
		}
		if err != nil {
			return fmt.Errorf("listen on %s:%s: %w", at.Network, at.Address, err)
		}
		r.mu.Lock()
		r.listeners = append(r.listeners, listener)
		r.mu.Unlock()
		go r.accept(listener, to)
	}
	return nil
}

func (r *relay) accept(listener net.Listener, to runtime.Endpoint) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors or the like: others may close some.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		go r.pass(conn, to)
	}
}

// pass connects and copies both ways until both sides have ended.
func (r *relay) pass(conn net.Conn, to runtime.Endpoint) {
	defer func() { _ = conn.Close() }()
	r.mu.Lock()
	c := r.container
	r.mu.Unlock()
	var out net.Conn
	var err error
	if r.proxy.InContainer {
		out, err = dialHost(to, r.proxy)
	} else {
		out, err = c.dial(to, r.proxy)
	}
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	if r.proxy.ProxyProtocol {
		if _, err := io.WriteString(out, proxyHeader(conn)); err != nil {
			return
		}
	}
	var both sync.WaitGroup
	both.Go(func() { copyHalf(out, conn) })
	both.Go(func() { copyHalf(conn, out) })
	both.Wait()
}

// copyHalf copies one direction and passes its end on.
func copyHalf(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err != nil || !ok {
		_, _ = to.Close(), from.Close()
		return
	}
	_ = half.CloseWrite()
}

// proxyHeader is the PROXY protocol's first line (version 1, "human-readable").
func proxyHeader(conn net.Conn) string {
	source, ok := conn.RemoteAddr().(*net.TCPAddr)
	target, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return "PROXY UNKNOWN\r\n"
	}
	family := "TCP6"
	if source.IP.To4() != nil && target.IP.To4() != nil {
		family = "TCP4"
	}
	return fmt.Sprintf("PROXY %s %s %s %d %d\r\n", family, source.IP, target.IP, source.Port, target.Port)
}

// followReboots returns when the container has ended. When it reboots, the
// namespaces are new: what listened inside must listen again.
func (r *relay) followReboots() {
	for {
		r.mu.Lock()
		c := r.container
		r.mu.Unlock()
		next, ok := c.next()
		if !ok {
			return
		}
		r.mu.Lock()
		closed := r.closed
		r.container = next
		old := r.listeners
		if r.proxy.InContainer {
			r.listeners = nil
		}
		r.mu.Unlock()
		if closed {
			return
		}
		if !r.proxy.InContainer {
			continue
		}
		for _, listener := range old {
			_ = listener.Close()
		}
		if err := r.listen(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
}

func (r *relay) close() {
	r.mu.Lock()
	listeners := r.listeners
	r.listeners, r.closed = nil, true
	r.mu.Unlock()
	for _, listener := range listeners {
		_ = listener.Close()
	}
}

// listenHost listens on the host.
func listenHost(at runtime.Endpoint, proxy runtime.Proxy) (net.Listener, error) {
	if at.Network != "unix" || at.Address[0] == '@' {
		return net.Listen(at.Network, at.Address)
	}
	if err := removeStale(at.Address); err != nil {
		return nil, err
	}
	old := unix.Umask(int(0o777 &^ socketMode(proxy)))
	listener, err := net.Listen("unix", at.Address)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := os.Lchown(at.Address, int(proxy.UID), int(proxy.GID)); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil //nolint:nilerr // Nothing stale; listening will tell.
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(unix.EADDRINUSE, conn.Close())
	}
	return os.Remove(path)
}

func socketMode(proxy runtime.Proxy) uint32 {
	if proxy.Mode == 0 {
		return 0o644
	}
	return proxy.Mode & 0o777
}

// dialHost connects on the host, to a unix socket as the user asked for.
func dialHost(to runtime.Endpoint, proxy runtime.Proxy) (conn net.Conn, err error) {
	return dialAs(to, proxy)
}

// dialTimeout bounds one connection attempt.
const dialTimeout = 10 * time.Second

func dialAs(to runtime.Endpoint, proxy runtime.Proxy) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var dialer net.Dialer
	if to.Network != "unix" || proxy.RunUID == 0 && proxy.RunGID == 0 {
		return dialer.DialContext(ctx, to.Network, to.Address)
	}
	err = inside.OnThread(func() error {
		if err := inside.ActAs(proxy.RunUID, proxy.RunGID, false); err != nil {
			return err
		}
		conn, err = dialer.DialContext(ctx, to.Network, to.Address)
		return err
	})
	return conn, err
}
