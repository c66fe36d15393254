package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"muster/cluster/pki"
	"muster/state"
)

// Dial connects to the given protocol of a member at address. The peer must
// show a certificate signed by our authority and naming member; an empty member
// accepts any. The connection is a *tls.Conn and is cut by CutMember like an
// accepted one. Errors are of kind state.ErrUnavailable, or state.ErrForbidden
// when the peer is not who it should be. A peer that does not admit us shows by
// closing the connection: TLS 1.3 lets the first read tell.
func (m *Mux) Dial(ctx context.Context, member, address, protocol string) (net.Conn, error) {
	if !slices.Contains(memberProtocols, protocol) {
		return nil, state.Errorf(state.ErrInvalid, "unknown protocol %q between members", protocol)
	}
	address, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if address == "" {
		return nil, state.Errorf(state.ErrUnavailable, "member %s has no address: it serves its own machine only", member)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.HandshakeTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, state.Errorf(state.ErrUnavailable, "member at %s cannot be reached: %w", address, err)
	}
	impatient(raw)
	c, kept := m.book(raw)
	if !kept {
		return nil, errors.Join(state.Errorf(state.ErrUnavailable, "the daemon is shutting down"), raw.Close())
	}
	secure := tls.Client(c, m.clientConfig(c, member, protocol))
	err = secure.HandshakeContext(ctx)
	if err == nil && secure.ConnectionState().NegotiatedProtocol != protocol {
		err = state.Errorf(state.ErrForbidden, "it does not speak %s", protocol)
	}
	if err == nil {
		return secure, nil
	}
	_ = secure.Close()
	kind := state.ErrUnavailable
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) || errors.Is(err, state.ErrForbidden) {
		kind = state.ErrForbidden
	}
	return nil, state.Errorf(kind, "member at %s: %w", address, err)
}

func (m *Mux) clientConfig(c *conn, member, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*m.cfg.Identity.Member().TLS()},
		RootCAs:      m.cfg.Identity.Authorities(),
		ServerName:   pki.MemberServerName,
		NextProtos:   []string{protocol},
		VerifyConnection: func(s tls.ConnectionState) error {
			return m.admit(c, s.PeerCertificates, member)
		},
	}
}

// memberSilence is how long the machine of another member may leave what was sent to it
// unconfirmed, or say nothing at all, before the connection breaks. Otherwise one to a
// machine that lost its power or its address would take minutes to; a member that is
// paused or overloaded is not silent, because its kernel answers.
const memberSilence = 3 * time.Second

// impatient sets memberSilence. It may fail on a connection that is gone already.
func impatient(conn net.Conn) {
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: memberSilence, Interval: time.Second, Count: 3})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(memberSilence.Milliseconds()))
		})
	}
}
