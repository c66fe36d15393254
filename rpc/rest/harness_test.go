package rest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/rpc/rest/api"
	"muster/state/store"
)

// serveUnix serves s on a socket of its own until the test ends, and returns a
// client for it.
func serveUnix(t testing.TB, s *Server) *caller {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, listener)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return newCaller(t, "http://unix", &http.Transport{DialContext: dial}, &websocket.Dialer{NetDialContext: dial})
}

// serveTLS serves s over TLS on a port of its own, and returns a maker of
// clients that show the given certificate, or none.
func serveTLS(t testing.TB, s *Server) func(*tls.Certificate) *caller {
	t.Helper()
	certificate := selfSigned(t, "server", time.Now().Add(time.Hour))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{*certificate}, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.RequestClientCert,
		MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, listener)
	return func(own *tls.Certificate) *caller {
		cfg := &tls.Config{InsecureSkipVerify: true} // the test knows whom it called
		if own != nil {
			cfg.Certificates = []tls.Certificate{*own}
		}
		transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
		return newCaller(t, "https://"+listener.Addr().String(), transport, &websocket.Dialer{TLSClientConfig: cfg.Clone()})
	}
}

func serve(t testing.TB, s *Server, listener net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends in the clean-up, after the clients' own
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// selfSigned makes a certificate like those that clients make for themselves.
func selfSigned(t testing.TB, name string, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// caller talks to a server the way a plain HTTP client does.
type caller struct {
	t      testing.TB
	base   string
	client *http.Client
	dialer *websocket.Dialer
}

func newCaller(t testing.TB, base string, transport *http.Transport, dialer *websocket.Dialer) *caller {
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t: t, base: base, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}, dialer: dialer}
}

// reply is an answer with its envelope.
type reply struct {
	api.Response
	http   *http.Response
	status int
	body   []byte
}

// do sends a request; line is "METHOD /path". The answer must be an envelope
// with all seven keys.
func (c *caller) do(line, body string, headers ...string) reply {
	c.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	// Also for clean-ups, where the test's own context has ended.
	request, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer, err := c.client.Do(request)
	if err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	defer answer.Body.Close()
	got := reply{http: answer, status: answer.StatusCode}
	if got.body, err = io.ReadAll(answer.Body); err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(got.body, &keys); err != nil {
		c.t.Fatalf("%s: the answer is not JSON: %v\n%s", line, err, got.body)
	}
	for _, key := range []string{"type", "status", "status_code", "operation", "error_code", "error", "metadata"} {
		if _, ok := keys[key]; !ok {
			c.t.Errorf("%s: the answer lacks %q: %s", line, key, got.body)
		}
	}
	if err := json.Unmarshal(got.body, &got.Response); err != nil {
		c.t.Fatalf("%s: %v\n%s", line, err, got.body)
	}
	return got
}

// must is do for what has to succeed; it decodes the metadata into value, unless
// that is nil.
func (c *caller) must(line, body string, value any) reply {
	c.t.Helper()
	got := c.do(line, body)
	if got.status >= 300 {
		c.t.Fatalf("%s %s: %d %s", line, body, got.status, got.Error)
	}
	if value != nil {
		reflect.ValueOf(value).Elem().SetZero()
		if err := json.Unmarshal(got.Metadata, value); err != nil {
			c.t.Fatalf("%s: metadata %s: %v", line, got.Metadata, err)
		}
	}
	return got
}

// refused checks that a request fails with the status and that the sentence
// contains words.
func (c *caller) refused(line, body string, status int, words string) {
	c.t.Helper()
	got := c.do(line, body)
	if got.status != status || !strings.Contains(got.Error, words) {
		c.t.Errorf("%s %.80s: %d %q; want %d with %q", line, body, got.status, got.Error, status, words)
	}
	if got.Type != api.ErrorResponse || got.ErrorCode != status {
		c.t.Errorf("%s: type %q, error_code %d; want error and %d", line, got.Type, got.ErrorCode, status)
	}
}

// websocket connects to path; the error text of a refusal is returned.
func (c *caller) websocket(path string, header http.Header) (*websocket.Conn, string) {
	c.t.Helper()
	url := "ws" + strings.TrimPrefix(c.base, "http") + path
	conn, answer, err := c.dialer.DialContext(c.t.Context(), url, header) //nolint:bodyclose // a websocket, or an error whose body is in memory
	if err != nil {
		if !errors.Is(err, websocket.ErrBadHandshake) {
			c.t.Fatalf("%s: %v", path, err)
		}
		var refusal api.Response
		body, _ := io.ReadAll(answer.Body)
		if err := json.Unmarshal(body, &refusal); err != nil {
			c.t.Fatalf("%s: refused with %q: %v", path, body, err)
		}
		return nil, refusal.Error
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn, ""
}

// eventually fails the test when condition does not come true in time.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen in 10 s", what)
		}
	}
}

// bare is a Config for tests that look at the wrappers and at no state.
func bare() Config {
	return Config{Log: slog.New(slog.DiscardHandler), Host: Host{Name: func() string { return "ant" }}, View: func() *store.View { return nil }, RequestTimeout: 5 * time.Second}
}
