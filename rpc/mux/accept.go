package mux

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"muster/cluster/pki"
	"muster/state"
)

// accept takes connections from a port until it is closed.
func (m *Mux) accept(port net.Listener) {
	const longest = time.Second
	pause := time.Duration(0)
	for {
		raw, err := port.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors or memory, or a peer that was gone
			// before we came: none of it is cured by giving up the port.
			pause = min(max(2*pause, 5*time.Millisecond), longest)
			m.cfg.Log.Warn("could not accept a connection", "pause", pause, "error", err)
			time.Sleep(pause)
			continue
		}
		pause = 0
		c, kept := m.keep(raw)
		if !kept {
			_ = raw.Close() // the mux is closing
			return
		}
		m.work.Go(func() { m.welcome(c) })
	}
}

// welcome does the TLS handshake and hands the connection over.
func (m *Mux) welcome(c *conn) {
	defer m.leaveQueue(c)
	deadline := time.Now().Add(m.cfg.HandshakeTimeout)
	_ = c.SetDeadline(deadline) // fails only on a closed connection
	secure := tls.Server(c, m.serverConfig(c))
	if err := secure.Handshake(); err != nil {
		m.refuse(c, err)
		return
	}
	_ = c.SetDeadline(time.Time{})
	protocol := secure.ConnectionState().NegotiatedProtocol
	if slices.Contains(memberProtocols, protocol) {
		impatient(c.Conn)
	} else {
		protocol = rest
	}
	m.handOver(m.listeners[protocol], c, secure, time.Until(deadline))
}

func (m *Mux) handOver(to *listener, c *conn, secure *tls.Conn, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-to.closed:
		_ = secure.Close()
		return
	default:
	}
	select {
	case to.conns <- secure:
	case <-to.closed:
		_ = secure.Close()
	case <-c.gone:
		// Cut, or the oldest of too many.
	case <-timer.C:
		m.cfg.Log.Warn("nobody took a connection", "protocol", to.protocol, "peer", c.RemoteAddr().String())
		_ = secure.Close()
	}
}

// refuse ends a connection whose handshake failed.
func (m *Mux) refuse(c *conn, err error) {
	m.cfg.Log.Debug("refused a connection", "peer", c.RemoteAddr().String(), "error", err)
	var header tls.RecordHeaderError
	if errors.As(err, &header) && looksLikeHTTP(header.RecordHeader) {
		_, _ = c.Write([]byte("HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks TLS: use https://\n"))
	}
	_ = c.Close()
}

// looksLikeHTTP judges by the five bytes that should have been a TLS record's
// header.
func looksLikeHTTP(header [5]byte) bool {
	return slices.ContainsFunc([]string{"GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO"}, func(start string) bool {
		return string(header[:]) == start
	})
}

// serverConfig chooses the configuration by what the client offers: whoever
// names a protocol between members must be one.
func (m *Mux) serverConfig(c *conn) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			m.greet(c)
			if slices.ContainsFunc(hello.SupportedProtos, func(p string) bool { return strings.HasPrefix(p, "muster/") }) {
				return m.memberConfig(c), nil
			}
			return m.restConfig(c), nil
		},
	}
}

func (m *Mux) restConfig(c *conn) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*m.cfg.Identity.Server().TLS()},
		NextProtos:   []string{"h2", "http/1.1"},
		// Any certificate is welcome: its owner proves to have the key, and
		// the trust store says whether that means anything.
		ClientAuth: tls.RequestClientCert,
		// A resumed session would outlive the trust it began with.
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				return m.identify(c, pki.Fingerprint(s.PeerCertificates[0]), "")
			}
			return nil
		},
	}
}

func (m *Mux) memberConfig(c *conn) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*m.cfg.Identity.Member().TLS()},
		NextProtos:             memberProtocols,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              m.cfg.Identity.Authorities(),
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return m.admit(c, s.PeerCertificates, "")
		},
	}
}

// admit checks a verified peer: it is a member, the right one when want is not
// empty, and may still come in.
func (m *Mux) admit(c *conn, chain []*x509.Certificate, want string) error {
	if len(chain) == 0 {
		return state.Errorf(state.ErrForbidden, "the peer shows no certificate")
	}
	id := pki.MemberOf(chain[0])
	switch {
	case id == "":
		return state.Errorf(state.ErrForbidden, "the peer's certificate names no member")
	case want != "" && id != want:
		return state.Errorf(state.ErrForbidden, "the peer is member %s, not %s", id, want)
	}
	// First known, then asked about: a removal that comes in between finds
	// the connection to cut.
	if err := m.identify(c, "", id); err != nil {
		return err
	}
	if m.cfg.Admit == nil {
		return nil
	}
	return m.cfg.Admit(id, want != "")
}
