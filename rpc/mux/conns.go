package mux

import (
	"container/list"
	"crypto/tls"
	"net"
	"slices"
	"sync"

	"muster/cluster/pki"
)

// conn is the wire below a TLS connection. It is what gets closed when somebody
// is to be out at once: closing TLS in order would wait for the peer.
type conn struct {
	net.Conn
	mux *Mux
	// fingerprint is the REST client's, member the peer member's ID; at most
	// one is set, by the handshake. Guarded by mux.mu.
	fingerprint, member string
	// greeted is set once the client's hello was understood. Guarded by
	// mux.mu.
	greeted bool
	// queued is the place in mux.queue, nil once handed over. Guarded by
	// mux.mu.
	queued *list.Element
	// gone is closed with the connection.
	gone chan struct{}
	once sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mux.mu.Lock()
	delete(c.mux.conns, c)
	c.mux.mu.Unlock()
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// Detach leaves the connection to whoever holds it: the Mux does not close it any more.
func (c *conn) Detach() {
	c.mux.mu.Lock()
	defer c.mux.mu.Unlock()
	delete(c.mux.conns, c)
}

// keep takes an accepted connection into the books. When too many are not
// through their handshake, one gives way: the oldest that has not even said
// hello, or else the oldest. Honest clients are through in milliseconds, so
// whoever holds places without getting on is hit. It reports false when the mux
// is closed.
func (m *Mux) keep(raw net.Conn) (*conn, bool) {
	c, kept := m.book(raw)
	if !kept {
		return nil, false
	}
	m.mu.Lock()
	c.queued = m.queue.PushBack(c)
	var oldest *conn
	if m.queue.Len() > m.cfg.MaxHandshakes {
		oldest = m.oldest()
		m.queue.Remove(oldest.queued)
		oldest.queued = nil
	}
	m.mu.Unlock()
	if oldest != nil {
		m.cfg.Log.Debug("too many handshakes at once: ended the oldest", "peer", oldest.RemoteAddr().String())
		_ = oldest.Close() // its handshake sees it
	}
	return c, true
}

// oldest returns who gives way in the queue, which is not empty; the caller
// holds mu.
func (m *Mux) oldest() *conn {
	for place := m.queue.Front(); place != nil; place = place.Next() {
		if c := place.Value.(*conn); !c.greeted {
			return c
		}
	}
	return m.queue.Front().Value.(*conn)
}

func (m *Mux) greet(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.greeted = true
}

// book takes a connection into the books.
func (m *Mux) book(raw net.Conn) (*conn, bool) {
	c := &conn{Conn: raw, mux: m, gone: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false
	}
	m.conns[c] = struct{}{}
	return c, true
}

func (m *Mux) leaveQueue(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.queued != nil {
		m.queue.Remove(c.queued)
		c.queued = nil
	}
}

// identify notes whose connection it is, as soon as the handshake tells.
func (m *Mux) identify(c *conn, fingerprint, member string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, open := m.conns[c]; !open {
		return net.ErrClosed
	}
	c.fingerprint, c.member = fingerprint, member
	return nil
}

// CutClients closes at once every REST connection made with a client certificate
// that matches by its fingerprint, open streams included, and returns how many
// there were. Remove the certificate from the trust store first: then no
// connection can slip through between the two. Match must return at once.
func (m *Mux) CutClients(match func(fingerprint string) bool) int {
	return m.cut(func(c *conn) bool { return c.fingerprint != "" && match(c.fingerprint) })
}

// CutMember closes at once every connection from and to the member, and returns
// how many there were. Make Admit refuse the member first.
func (m *Mux) CutMember(id string) int {
	if id == "" {
		return 0
	}
	return m.cut(func(c *conn) bool { return c.member == id })
}

func (m *Mux) cut(whose func(*conn) bool) int {
	m.mu.Lock()
	var found []*conn
	for c := range m.conns {
		if whose(c) {
			found = append(found, c)
		}
	}
	m.mu.Unlock()
	for _, c := range found {
		if tcp, isTCP := c.Conn.(*net.TCPConn); isTCP {
			_ = tcp.SetLinger(0) // what is unsent is not for them any more
		}
		_ = c.Close()
	}
	return len(found)
}

// MemberOf returns the ID of the member at the other end of a connection that
// came from Listener or Dial, or "" for any other connection.
func MemberOf(conn net.Conn) string {
	secure, isTLS := conn.(*tls.Conn)
	if !isTLS {
		return ""
	}
	s := secure.ConnectionState()
	if !slices.Contains(memberProtocols, s.NegotiatedProtocol) || len(s.PeerCertificates) == 0 {
		return ""
	}
	return pki.MemberOf(s.PeerCertificates[0])
}
