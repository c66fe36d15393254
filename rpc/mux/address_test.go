package mux_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"muster/rpc/mux"
	"muster/state"
)

func TestMovingThePort(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	serve(t, m)
	old := m.Address()
	_, number, err := net.SplitHostPort(old)
	if err != nil {
		t.Fatal(err)
	}
	held := client(t, m, i, nil)
	if _, err := get(t, held, m, "/"); err != nil {
		t.Fatal(err)
	}
	stillOpen := func(when string) {
		t.Helper()
		answer, err := held.Get("https://" + old + "/")
		if err != nil {
			t.Errorf("%s the open connection is gone: %v", when, err)
			return
		}
		answer.Body.Close()
	}
	reachable := func() {
		t.Helper()
		if _, err := get(t, client(t, m, i, nil), m, "/"); err != nil {
			t.Errorf("at %s: %v", m.Address(), err)
		}
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tc := range map[string]struct {
		address string
		kind    error
		says    string
	}{
		"an address in use":             {taken.Addr().String(), state.ErrConflict, "in use by another process"},
		"an address of another machine": {"192.0.2.1:8443", state.ErrConflict, "has no address"},
		"a host that is not known":      {"no-such-host.invalid:8443", state.ErrInvalid, "is not known"},
		"not an address":                {"https://x", state.ErrInvalid, "slash"},
	} {
		err := m.SetAddress(t.Context(), tc.address)
		if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v; want %v saying %q", name, err, tc.kind, tc.says)
		}
		if m.Address() != old {
			t.Fatalf("%s: the port moved to %s", name, m.Address())
		}
		reachable()
	}

	for _, to := range []string{"127.0.0.1:0", "0.0.0.0:" + number, "127.0.0.1:" + number, "[::]:" + number, "127.0.0.1:" + number} {
		if err := m.SetAddress(t.Context(), to); err != nil {
			t.Fatalf("to %s: %v", to, err)
		}
		stillOpen("after moving to " + to)
		if !strings.Contains(to, "[") && !strings.HasPrefix(to, "0.") {
			reachable()
		} else if c, err := net.Dial("tcp", "127.0.0.1:"+number); err != nil {
			t.Errorf("%s: %v", to, err)
		} else {
			c.Close()
		}
		// However it got there, the port is ours alone.
		lc := net.ListenConfig{}
		if second, err := lc.Listen(t.Context(), "tcp", m.Address()); err == nil {
			second.Close()
			t.Errorf("at %s a second listener was let in", m.Address())
		}
	}
	if err := m.SetAddress(t.Context(), m.Address()); err != nil {
		t.Errorf("to where it is: %v", err)
	}
	last := m.Address()
	if err := m.SetAddress(t.Context(), ""); err != nil || m.Address() != "" {
		t.Errorf("closing the port: %v, address %q", err, m.Address())
	}
	if c, err := net.Dial("tcp", last); err == nil {
		c.Close()
		t.Error("the closed port answers")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.SetAddress(t.Context(), "127.0.0.1:0"); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("opening the port of a closed mux: %v; want ErrUnavailable", err)
	}
}

func TestParseAddress(t *testing.T) {
	for address, want := range map[string]string{
		"": "", "[::]:8443": "[::]:8443", ":8443": "[::]:8443", "::": "[::]:8443", "[::]": "[::]:8443",
		"10.0.0.1": "10.0.0.1:8443", "10.0.0.1:9443": "10.0.0.1:9443", "10.0.0.1:": "10.0.0.1:8443",
		"fe80::1%eth0": "[fe80::1%eth0]:8443", "[2001:DB8::0:1]:8443": "[2001:db8::1]:8443", "ant": "ant:8443",
		"ant.example:1": "ant.example:1", " ant:08443 ": "ant:8443",
	} {
		if got, err := mux.ParseAddress(address); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
	for _, address := range []string{
		"https://ant:8443", "ant:http", "ant:65536", "ant:-1", "ant:8443:8443", "[ant]:x", "[ant]", "an t:8443", "-ant:1", "ant..b", "10.0.0.256:1", "[::]:8443x", "1.2.3", ":::", "@",
	} {
		if got, err := mux.ParseAddress(address); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%q: %q, %v; want ErrInvalid", address, got, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"[::]:8443", "10.0.0.1", "ant:1", "[::1%lo]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		once, err := mux.ParseAddress(address)
		if err != nil {
			return
		}
		if twice, err := mux.ParseAddress(once); err != nil || twice != once {
			t.Errorf("%q became %q, which becomes %q, %v", address, once, twice, err)
		}
	})
}

func TestASecondAddress(t *testing.T) {
	m := open(t, mux.Config{})
	_, port, err := net.SplitHostPort(m.Address())
	if err != nil {
		t.Fatal(err)
	}
	answers := func(host string) bool {
		conn, err := tls.Dial("tcp", net.JoinHostPort(host, port), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // whoever answers
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
	for _, host := range []string{"127.7.7.7", "127.7.7.8"} {
		for range 2 { // the second time nothing changes
			if err := m.SetSecond(t.Context(), net.JoinHostPort(host, port)); err != nil {
				t.Fatal(err)
			}
		}
		if !answers(host) || !answers("127.0.0.1") {
			t.Errorf("with %s as well as 127.0.0.1 one does not answer", host)
		}
	}
	if answers("127.7.7.7") {
		t.Error("the former second address still answers")
	}
	if err := m.SetSecond(t.Context(), net.JoinHostPort("192.0.2.1", port)); !errors.Is(err, state.ErrConflict) || !answers("127.7.7.8") {
		t.Errorf("an address of another machine: %v; want a conflict, and that nothing changes", err)
	}
	if err := m.SetSecond(t.Context(), ""); err != nil || answers("127.7.7.8") || !answers("127.0.0.1") {
		t.Errorf("after it was given up (%v) the second address answers, or the first does not", err)
	}
}
