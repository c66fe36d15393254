package mux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// SetAddress moves the port to address, which is completed by ParseAddress; ""
// closes the port. The new address is bound before the old one is closed, and
// connections made through the old one live on. When binding fails the old
// address stays in use; the error is of kind state.ErrInvalid (no address at
// all) or state.ErrConflict (taken, or not this machine's).
func (m *Mux) SetAddress(ctx context.Context, address string) error {
	address, err := ParseAddress(address)
	if err != nil {
		return err
	}
	old, moved, err := m.move(ctx, &m.port)
	if err != nil {
		return err
	}
	defer moved()
	if address == "" {
		m.replacePort(nil)
		return closePort(old)
	}
	if old != nil && old.Addr().String() == address {
		return nil
	}
	port, err := bind(ctx, address, old)
	if err != nil {
		return err
	}
	m.replacePort(port)
	m.work.Go(func() { m.accept(port) })
	m.cfg.Log.Info("listening", "address", port.Addr().String())
	return closePort(old)
}

// SetSecond has the port served at a second address too, until it is given another; an
// empty one ends that. What was accepted there stays.
func (m *Mux) SetSecond(ctx context.Context, address string) error {
	old, moved, err := m.move(ctx, &m.second)
	if err != nil {
		return err
	}
	defer moved()
	if old != nil && old.Addr().String() == address {
		return nil
	}
	var port net.Listener
	if address != "" {
		if port, err = bind(ctx, address, nil); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.second = port
	m.mu.Unlock()
	if port != nil {
		m.work.Go(func() { m.accept(port) })
	}
	return closePort(old)
}

// move waits for its turn to change where the port is served, which lasts until moved is
// called, and returns what which holds now.
func (m *Mux) move(ctx context.Context, which *net.Listener) (old net.Listener, moved func(), err error) {
	select {
	case m.moving <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, state.Errorf(state.ErrConflict, "the port is being moved already: %w", ctx.Err())
	}
	moved = func() { <-m.moving }
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		moved()
		return nil, nil, state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
	}
	return *which, moved, nil
}

// Address returns the address the port is bound to, with its real port, or ""
// while it is closed.
func (m *Mux) Address() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.port == nil {
		return ""
	}
	return m.port.Addr().String()
}

func (m *Mux) replacePort(port net.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.port = port
}

func closePort(port net.Listener) error {
	if port == nil {
		return nil
	}
	return port.Close()
}

// keepAlive finds a peer that has vanished after half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// bind listens on address while old may still be open. Where the two overlap
// (10.0.0.1:8443 and [::]:8443) the kernel refuses unless both agree to share
// the port; they do so for the moment of the move only, so that no second
// daemon can ever share it by accident.
func bind(ctx context.Context, address string, old net.Listener) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "address %q: %w", address, err)
	}
	network, where := "tcp", address
	switch ip, err := netip.ParseAddr(host); {
	case err == nil && ip.Is4():
		network = "tcp4"
	case host == "::":
		// Go then takes what the machine has: both families, or IPv4 alone
		// where IPv6 is switched off.
		where = net.JoinHostPort("", port)
	}
	alone := net.ListenConfig{KeepAliveConfig: keepAlive}
	bound, err := alone.Listen(ctx, network, where)
	if errors.Is(err, unix.EADDRINUSE) && old != nil && samePort(old, port) && share(old, true) == nil {
		sharing := net.ListenConfig{KeepAliveConfig: keepAlive, Control: func(_, _ string, c syscall.RawConn) error { return shareRaw(c, true) }}
		bound, err = sharing.Listen(ctx, network, where)
		if stop := share(old, false); stop != nil && err == nil {
			err = errors.Join(stop, bound.Close())
		}
		if err == nil {
			if stop := share(bound, false); stop != nil {
				err = errors.Join(stop, bound.Close())
			}
		}
	}
	if err != nil {
		return nil, explain(address, err)
	}
	return bound, nil
}

func explain(address string, err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return state.Errorf(state.ErrConflict, "address %s is in use by another process: choose another port, or stop that process", address)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return state.Errorf(state.ErrConflict, "this machine has no address %s: choose one of its own, or [::] for all of them", address)
	case errors.Is(err, unix.EACCES):
		return state.Errorf(state.ErrConflict, "address %s needs privileges: choose a port above 1023", address)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return state.Errorf(state.ErrConflict, "address %s is of a family that this machine does not speak", address)
	case errors.As(err, &dns):
		return state.Errorf(state.ErrInvalid, "address %s: host %q is not known here: write an IP address of this machine", address, dns.Name)
	}
	return state.Errorf(state.ErrConflict, "address %s cannot be used: %w", address, err)
}

func samePort(l net.Listener, port string) bool {
	bound, isTCP := l.Addr().(*net.TCPAddr)
	return isTCP && strconv.Itoa(bound.Port) == port
}

func share(l net.Listener, on bool) error {
	tcp, isTCP := l.(*net.TCPListener)
	if !isTCP {
		return fmt.Errorf("%T cannot share its port", l)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return shareRaw(raw, on)
}

func shareRaw(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var set error
	err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value) })
	return errors.Join(err, set)
}

// ParseAddress completes an address as users write it to host:port: the port
// is DefaultPort when omitted, and no host means every address of the machine
// ("[::]"). An empty address stays empty. The error is of kind state.ErrInvalid
// and says what would be right.
func ParseAddress(address string) (string, error) {
	text := strings.TrimSpace(address)
	if text == "" {
		return "", nil
	}
	wrong := func(why string) (string, error) {
		return "", state.Errorf(state.ErrInvalid, "%q is not an address: %s; write host:port, such as [::]:%s or 10.0.0.1:%s", address, why, DefaultPort, DefaultPort)
	}
	if strings.Contains(text, "/") {
		return wrong("it contains a slash")
	}
	host, port := text, DefaultPort
	switch {
	case validIP(text):
	case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
		host = text[1 : len(text)-1]
		if !validIP(host) {
			return wrong("brackets are for IPv6 addresses")
		}
	case strings.Contains(text, ":"):
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return wrong("its colons do not make a host and a port")
		}
		if port == "" {
			port = DefaultPort
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return wrong("the port is a number from 1 to 65535")
	}
	port = strconv.FormatUint(number, 10)
	if host == "" {
		host = "::"
	}
	if ip, valid := parseIP(host); valid {
		host = ip.String()
	} else if !validHost(host) {
		return wrong("the host is neither an IP address nor a host name")
	}
	return net.JoinHostPort(host, port), nil
}

func validIP(text string) bool {
	_, valid := parseIP(text)
	return valid
}

// parseIP reads an IP address. Its zone is the name of an interface: brackets
// and the like in it would change what the address means.
func parseIP(text string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(text)
	return ip, err == nil && !strings.ContainsAny(ip.Zone(), "[]%: ")
}

func validHost(host string) bool {
	if len(host) > 253 || strings.Trim(host, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
