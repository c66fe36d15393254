package mux

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"muster/cluster/pki"
)

// guest is one whom the mux has just accepted, over a pipe: in a bubble only pipes let
// the clock go on.
func guest(t *testing.T, m *Mux) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	c, kept := m.keep(far)
	if !kept {
		t.Fatal("the mux is closed")
	}
	m.work.Go(func() { m.welcome(c) })
	t.Cleanup(func() { _ = near.Close() })
	return near
}

// member makes the guest one that speaks raft.
func member(t *testing.T, m *Mux, guest net.Conn) *tls.Conn {
	t.Helper()
	secure := tls.Client(guest, &tls.Config{
		Certificates: []tls.Certificate{*m.cfg.Identity.Member().TLS()}, InsecureSkipVerify: true, NextProtos: []string{Raft},
	})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	return secure
}

// From accept to whoever takes the connection there is one deadline, to the moment.
func TestTheDeadline(t *testing.T) {
	const timeout = 10 * time.Second
	for name, guestOf := range map[string]func(t *testing.T, m *Mux, guest net.Conn) io.Reader{
		"one that says nothing": func(_ *testing.T, _ *Mux, guest net.Conn) io.Reader { return guest },
		"one that breaks off, and goes on, and breaks off": func(t *testing.T, _ *Mux, guest net.Conn) io.Reader {
			for _, part := range [][]byte{{22, 3, 1}, {0, 200}, {1, 0}} {
				if _, err := guest.Write(part); err != nil {
					t.Error(err)
				}
				time.Sleep(3 * time.Second)
			}
			return guest
		},
		"a member that nobody takes": func(t *testing.T, m *Mux, guest net.Conn) io.Reader {
			time.Sleep(4 * time.Second)
			return member(t, m, guest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bubble(t, timeout)
				begun := time.Now()
				if said, err := io.ReadAll(guestOf(t, m, guest(t, m))); err != nil || len(said) > 0 {
					t.Errorf("read %q, %v; want the connection closed", said, err)
				}
				if after := time.Since(begun); after != timeout {
					t.Errorf("closed after %v; want %v", after, timeout)
				}
			})
		})
	}
	t.Run("one that is taken just in time is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := bubble(t, timeout)
			wire := guest(t, m)
			time.Sleep(timeout / 2)
			theirs := member(t, m, wire)
			time.Sleep(timeout/2 - time.Nanosecond)
			ours, err := m.Listener(Raft).Accept()
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * timeout)
			go func() { _, _ = theirs.Write([]byte("hello")) }()
			if said, err := io.ReadAll(io.LimitReader(ours, 5)); err != nil || string(said) != "hello" {
				t.Errorf("long after the deadline: %q, %v; want hello", said, err)
			}
		})
	})
}

// bubble returns a mux without a port, made in the bubble of t: its certificates are of
// the bubble's time.
func bubble(t *testing.T, timeout time.Duration) *Mux {
	t.Helper()
	i, err := pki.Open(t.TempDir(), pki.Options{MemberID: "ant"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Identity: i, HandshakeTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return m
}
