package rest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"muster/state"
)

// connections knows the open connections of one Serve, upgraded ones included,
// which net/http forgets.
type connections struct {
	// handlers counts the handlers at work: net/http does not wait for those of
	// upgraded connections.
	handlers sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]*connection // guarded by mu
}

// connection is one of them.
type connection struct {
	of *connections
	// unix is set on the local socket.
	unix *net.UnixConn

	upgraded atomic.Bool
}

type connKey struct{}

func connOf(ctx context.Context) *connection {
	conn, _ := ctx.Value(connKey{}).(*connection)
	return conn
}

// add is the server's ConnContext.
func (cs *connections) add(ctx context.Context, c net.Conn) context.Context {
	conn := &connection{of: cs}
	conn.unix, _ = c.(*net.UnixConn)
	cs.mu.Lock()
	cs.open[c] = conn
	cs.mu.Unlock()
	return context.WithValue(ctx, connKey{}, conn)
}

// changed is the server's ConnState. An upgraded connection stays known until
// its handler is done with it.
func (cs *connections) changed(c net.Conn, is http.ConnState) {
	cs.mu.Lock()
	conn := cs.open[c]
	if is == http.StateClosed {
		delete(cs.open, c)
	}
	cs.mu.Unlock()
	if is == http.StateHijacked && conn != nil {
		conn.upgraded.Store(true)
	}
}

// enter notes that a handler works for the connection; the caller defers what
// it returns.
func (c *connection) enter() (leave func()) {
	c.of.handlers.Add(1)
	return func() {
		if c.upgraded.Load() {
			c.of.closeIf(func(other *connection) bool { return other == c })
		}
		c.of.handlers.Done()
	}
}

// closeIf closes and forgets the connections that match.
func (cs *connections) closeIf(match func(*connection) bool) {
	cs.mu.Lock()
	var doomed []net.Conn
	for c, conn := range cs.open {
		if match(conn) {
			doomed = append(doomed, c)
			delete(cs.open, c)
		}
	}
	cs.mu.Unlock()
	for _, c := range doomed {
		hangUp(c)
	}
}

func (cs *connections) closeUpgraded() {
	cs.closeIf(func(c *connection) bool { return c.upgraded.Load() })
}

func (cs *connections) closeAll() { cs.closeIf(func(*connection) bool { return true }) }

// hangUp closes a connection without waiting: a TLS close would first try to
// tell a peer that may not be reading.
func hangUp(c net.Conn) {
	if secure, ok := c.(*tls.Conn); ok {
		_ = secure.NetConn().Close()
	}
	_ = c.Close()
}

// local identifies the peer of the local socket: root, the daemon's own user,
// and members of the configured group administer; nobody else is let in.
func (s *Server) local(conn *net.UnixConn) (Caller, error) {
	cred, groups, err := peerCredentials(conn)
	if err != nil {
		return Caller{Trust: Untrusted}, err
	}
	caller := Caller{Trust: Full, Protocol: "unix", Name: userName(cred.Uid), Address: "@"}
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() {
		return caller, nil
	}
	if s.cfg.Group >= 0 {
		for _, gid := range append(groups, cred.Gid) {
			if int(gid) == s.cfg.Group {
				return caller, nil
			}
		}
	}
	return Caller{Trust: Untrusted}, state.Errorf(state.ErrForbidden,
		"user %d may not use this socket: only root and members of its group may", cred.Uid)
}

// userName is the name of a user, or its number when it has none.
func userName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return id
}

// peerCredentials asks the kernel who connected: user, group and, where the
// kernel tells (Linux 4.13, SO_PEERGROUPS), the supplementary groups.
func peerCredentials(conn *net.UnixConn) (cred *unix.Ucred, groups []uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			groups = peerGroups(fd)
		}
	})
	if controlErr != nil {
		return nil, nil, controlErr
	}
	return cred, groups, err
}

func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 65536/4) // NGROUPS_MAX ids
	length := uint32(len(groups) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil
	}
	return groups[:length/4]
}
