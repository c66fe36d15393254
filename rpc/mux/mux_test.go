package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/cluster/pki"
	"muster/rpc/mux"
	"muster/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func identity(t testing.TB, id string) *pki.Identity {
	t.Helper()
	i, err := pki.Open(t.TempDir(), pki.Options{MemberID: id})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// sibling makes the identity of another member of the same cluster.
func sibling(t testing.TB, of *pki.Identity, id string) tls.Certificate {
	t.Helper()
	request, key, err := pki.MakeRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := of.SignMember(request, id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// patience is what no test waits for unless something hangs, however busy the machine is.
const patience = time.Minute

func open(t testing.TB, cfg mux.Config) *mux.Mux {
	t.Helper()
	if cfg.Identity == nil {
		cfg.Identity = identity(t, "ant")
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = patience
	}
	m, err := mux.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	})
	if err := m.SetAddress(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return m
}

// serve answers REST requests with what the server sees of the client.
func serve(t testing.TB, m *mux.Mux) {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			who = pki.Fingerprint(r.TLS.PeerCertificates[0])
		}
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprintf(w, "%s %s %v", r.Proto, who, r.TLS != nil)
	})}
	var group sync.WaitGroup
	group.Go(func() {
		if err := server.Serve(m.REST()); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = server.Close(); group.Wait() })
}

func client(t testing.TB, m *mux.Mux, i *pki.Identity, change func(*http.Transport)) *http.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := pki.Fingerprint(s.PeerCertificates[0]); got != i.Server().Fingerprint() {
				return fmt.Errorf("the server shows %s", got)
			}
			return nil
		},
	}}
	if change != nil {
		change(transport)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t testing.TB, c *http.Client, m *mux.Mux, path string) (string, error) {
	t.Helper()
	answer, err := c.Get("https://" + m.Address() + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func TestRESTClients(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	serve(t, m)
	mine := identity(t, "").Server() // any certificate will do

	for name, tc := range map[string]struct {
		change func(*http.Transport)
		want   string
		fails  string
	}{
		"h2 without a certificate": {nil, "HTTP/2.0 nobody true", ""},
		"http/1.1 without a certificate": {
			func(tr *http.Transport) {
				tr.ForceAttemptHTTP2 = false
				tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			},
			"HTTP/1.1 nobody true", "",
		},
		"any certificate is shown to the handler": {
			func(tr *http.Transport) { tr.TLSClientConfig.Certificates = []tls.Certificate{*mine.TLS()} },
			"HTTP/2.0 " + mine.Fingerprint() + " true", "",
		},
		"TLS 1.2 is refused": {func(tr *http.Transport) { tr.TLSClientConfig.MaxVersion = tls.VersionTLS12 }, "", "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := get(t, client(t, m, i, tc.change), m, "/")
			if tc.fails == "" && (err != nil || got != tc.want) {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
			if tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)) {
				t.Errorf("got %q, %v; want an error saying %q", got, err, tc.fails)
			}
		})
	}

	t.Run("plain HTTP is told what to do", func(t *testing.T) {
		answer, err := http.Get("http://" + m.Address() + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "use https://") {
			t.Errorf("%s %q; want 400 that says to use https", answer.Status, body)
		}
	})
	t.Run("a new cluster certificate is shown from then on", func(t *testing.T) {
		key, err := os.ReadFile(filepath.Join(dirOf(t, i), "member.key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := i.ReplaceServer(i.Member().CertificatePEM, key); err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, client(t, m, i, nil), m, "/"); err != nil {
			t.Error(err)
		}
	})
}

// dirOf finds the directory of an identity by its member certificate.
func dirOf(t *testing.T, i *pki.Identity) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(t.TempDir())), "*", "*", "member.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if data, _ := os.ReadFile(path); string(data) == string(i.Member().CertificatePEM) {
			return filepath.Dir(path)
		}
	}
	t.Fatal("no directory found")
	return ""
}

// pylxd speaks through requests and OpenSSL: what it needs is what this checks.
func TestPythonClientsConnect(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	dir := t.TempDir()
	i, err := pki.Open(dir, pki.Options{MemberID: "ant"})
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, mux.Config{Identity: i})
	serve(t, m)
	if err := exec.CommandContext(t.Context(), python, "-c", "import requests").Run(); err != nil {
		t.Skip("needs python3-requests")
	}
	// The client verifies the server against the pinned certificate and shows
	// one of its own.
	out, err := exec.CommandContext(t.Context(), python, "-c", `
import requests, sys
url, server, cert, key = sys.argv[1:]
print(requests.get(url, verify=server, cert=(cert, key), timeout=20).text)
print(requests.get(url, verify=server, timeout=20).text)
`, "https://"+m.Address()+"/", filepath.Join(dir, "server.crt"), filepath.Join(dir, "member.crt"), filepath.Join(dir, "member.key")).CombinedOutput()
	want := "HTTP/1.1 " + i.Member().Fingerprint() + " true\nHTTP/1.1 nobody true\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, %s; want %s", err, out, want)
	}
}

// echo answers on a protocol between members until the mux closes.
func echo(t testing.TB, m *mux.Mux, protocol string) {
	t.Helper()
	var group sync.WaitGroup
	t.Cleanup(group.Wait)
	listener := m.Listener(protocol)
	t.Cleanup(func() { _ = m.Close() })
	group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				fmt.Fprintf(c, "hello %s, this is %s\n", mux.MemberOf(c), protocol)
				_, _ = io.Copy(c, c)
			})
		}
	})
}

func TestMembersReachEachOther(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	for _, protocol := range []string{mux.GRPC, mux.Dqlite, mux.Raft, mux.Gossip} {
		echo(t, m, protocol)
	}
	for _, protocol := range []string{mux.GRPC, mux.Dqlite, mux.Raft, mux.Gossip} {
		c, err := m.Dial(t.Context(), "ant", m.Address(), protocol)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if want := "hello ant, this is " + protocol + "\n"; err != nil || line != want {
			t.Errorf("%q, %v; want %q", line, err, want)
		}
		if got := mux.MemberOf(c); got != "ant" {
			t.Errorf("dialled %q; want ant", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := m.Dial(t.Context(), "bee", m.Address(), mux.GRPC)
	if !errors.Is(err, state.ErrForbidden) || !strings.Contains(err.Error(), "is member ant, not bee") {
		t.Errorf("dialling bee at ant's address: %v; want ErrForbidden", err)
	}
	if _, err := m.Dial(t.Context(), "ant", m.Address(), "h2"); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("dialling REST: %v; want ErrInvalid", err)
	}
	if _, err := m.Dial(t.Context(), "ant", "", mux.GRPC); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("dialling nowhere: %v; want ErrUnavailable", err)
	}
	if _, err := m.Dial(t.Context(), "ant", "127.0.0.1:1", mux.GRPC); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("dialling where nobody listens: %v; want ErrUnavailable", err)
	}
	stranger := open(t, mux.Config{Identity: identity(t, "ant")})
	if _, err := m.Dial(t.Context(), "ant", stranger.Address(), mux.GRPC); !errors.Is(err, state.ErrForbidden) {
		t.Errorf("dialling another cluster: %v; want ErrForbidden", err)
	}
}

// speak does a handshake as a client and reads what comes.
func speak(t *testing.T, m *mux.Mux, cfg *tls.Config) (string, error) {
	t.Helper()
	cfg.InsecureSkipVerify = true
	dialer := tls.Dialer{Config: cfg}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", m.Address())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return bufio.NewReader(c).ReadString('\n')
}

func TestOnlyMembersSpeakTheProtocolsOfMembers(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i, Admit: func(id string, _ bool) error {
		if id == "removed" {
			return errors.New("removed from the cluster")
		}
		return nil
	}})
	for _, protocol := range []string{mux.GRPC, mux.Raft} {
		echo(t, m, protocol)
	}
	for name, tc := range map[string]struct {
		cert   *tls.Certificate
		protos []string
		want   string
	}{
		"a member of the cluster is let in":          {new(sibling(t, i, "bee")), []string{mux.GRPC}, "hello bee, this is muster/grpc\n"},
		"h2 offered beside it makes no difference":   {new(sibling(t, i, "bee")), []string{"h2", mux.Raft}, "hello bee, this is muster/raft\n"},
		"no certificate is refused":                  {nil, []string{mux.GRPC}, ""},
		"the cluster certificate is refused":         {i.Server().TLS(), []string{mux.GRPC}, ""},
		"a member of another cluster is refused":     {identity(t, "bee").Member().TLS(), []string{mux.GRPC}, ""},
		"a removed member is refused":                {new(sibling(t, i, "removed")), []string{mux.GRPC}, ""},
		"a protocol that does not exist is refused":  {new(sibling(t, i, "bee")), []string{"muster/chess"}, ""},
		"a foreign protocol beside none is refused":  {new(sibling(t, i, "bee")), []string{"imap"}, ""},
		"the authority's own certificate is refused": {authority(t), []string{mux.GRPC}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &tls.Config{NextProtos: tc.protos}
			if tc.cert != nil {
				cfg.Certificates = []tls.Certificate{*tc.cert}
			}
			got, err := speak(t, m, cfg)
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// authority returns the pair of some authority: it is no member's.
func authority(t *testing.T) *tls.Certificate {
	t.Helper()
	dir := t.TempDir()
	if _, err := pki.Open(dir, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

func is(fingerprint string) func(string) bool {
	return func(other string) bool { return other == fingerprint }
}

func TestCuttingAClientEndsItsOpenStreams(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	serve(t, m)
	mine, other := identity(t, "").Server(), identity(t, "").Server()
	stream := func(pair *pki.Pair) io.ReadCloser {
		c := client(t, m, i, func(tr *http.Transport) { tr.TLSClientConfig.Certificates = []tls.Certificate{*pair.TLS()} })
		answer, err := c.Get("https://" + m.Address() + "/stream")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer.Body
	}
	cut, kept := stream(mine), stream(other)
	if n := m.CutClients(is("no such fingerprint")); n != 0 {
		t.Errorf("cut %d connections of nobody", n)
	}
	if n := m.CutClients(is(mine.Fingerprint())); n != 1 {
		t.Errorf("cut %d connections; want 1", n)
	}
	if _, err := io.ReadAll(cut); err == nil {
		t.Error("the stream ended as if all were well")
	}
	answered := make(chan error, 1)
	go func() {
		_, err := kept.Read(make([]byte, 1))
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("the other client's stream ended as well: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if n := m.CutClients(is(other.Fingerprint())); n != 1 {
		t.Errorf("cut %d connections; want 1", n)
	}
	if err := <-answered; err == nil {
		t.Error("the other stream ended as if all were well")
	}
}

func TestCuttingAMemberEndsBothDirections(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	echo(t, m, mux.Raft)
	c, err := m.Dial(t.Context(), "ant", m.Address(), mux.Raft)
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(c)
	if _, err := reader.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if n := m.CutMember("bee"); n != 0 {
		t.Errorf("cut %d connections of bee", n)
	}
	if n := m.CutMember("ant"); n != 2 {
		t.Errorf("cut %d connections; want the one dialled and the one accepted", n)
	}
	if _, err := reader.ReadString('\n'); err == nil {
		t.Error("the connection lives")
	}
}

// Whatever strangers send, the port goes on serving, and no more of theirs stays open
// than there is room for.
func TestThePortSurvivesStrangers(t *testing.T) {
	const strangers, room = 150, 20
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i, MaxHandshakes: room})
	serve(t, m)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var dialled sync.WaitGroup
	ended := make(chan struct{}, strangers)
	for n := range strangers {
		junk := make([]byte, random.IntN(2000))
		for b := range junk {
			junk[b] = byte(random.Uint32())
		}
		if n%3 == 0 && len(junk) > 5 {
			copy(junk, []byte{22, 3, 1, 0, 200}) // a TLS record that is none
		}
		how := n % 4
		dialled.Add(1)
		go func() {
			defer func() { ended <- struct{}{} }()
			c, err := net.Dial("tcp", m.Address())
			dialled.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			switch how {
			case 0: // a port scan: gone at once
				return
			case 1: // says nothing
			default:
				_, _ = c.Write(junk)
			}
			_, _ = io.Copy(io.Discard, c)
		}()
	}
	dialled.Wait()
	for range 20 {
		if _, err := get(t, client(t, m, i, nil), m, "/"); err != nil {
			t.Errorf("while strangers are at the door: %v", err)
		}
	}
	for range strangers - room {
		<-ended
	}
	if _, err := get(t, client(t, m, i, nil), m, "/"); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for range room {
		<-ended
	}
}

func TestAHandshakeCutShortAtAnyByteHarmsNobody(t *testing.T) {
	i := identity(t, "ant")
	m := open(t, mux.Config{Identity: i})
	echo(t, m, mux.GRPC)
	cert := sibling(t, i, "bee")
	for limit := 1; limit < 2500; limit += 97 {
		raw, err := net.Dial("tcp", m.Address())
		if err != nil {
			t.Fatal(err)
		}
		secure := tls.Client(&limited{raw, limit}, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: []string{mux.GRPC}})
		_ = secure.HandshakeContext(t.Context()) // fails, or the peer sees it fail
		_ = raw.Close()
	}
	c, err := m.Dial(t.Context(), "ant", m.Address(), mux.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// limited sends only the first bytes and then breaks.
type limited struct {
	net.Conn
	left int
}

func (l *limited) Write(data []byte) (int, error) {
	if len(data) <= l.left {
		l.left -= len(data)
		return l.Conn.Write(data)
	}
	n, _ := l.Conn.Write(data[:l.left])
	l.left = 0
	return n, errors.Join(net.ErrClosed, l.Close())
}

// deadline_test.go has the rest of the deadline, over pipes and by a clock of its own.
func TestTheDeadlineHoldsForConnectionsOfTheNetwork(t *testing.T) {
	m := open(t, mux.Config{HandshakeTimeout: 50 * time.Millisecond})
	c, err := net.Dial("tcp", m.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v; want the connection closed", err)
	}
}

func BenchmarkHandshake(b *testing.B) {
	i := identity(b, "ant")
	m := open(b, mux.Config{Identity: i})
	serve(b, m)
	for b.Loop() {
		c, err := tls.Dial("tcp", m.Address(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
