package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/rpc/client"
	"muster/rpc/rest/api"
	"muster/test/lab"
)

// outsider is a client that reaches members over TLS.
type outsider struct {
	t    *testing.T
	pair *tls.Certificate // nil shows no certificate
}

// newOutsider makes a client whose certificate all members trust with the given entry.
func newOutsider(t *testing.T, members []*lab.Member, entry object) outsider {
	t.Helper()
	certificate, key := newCertificate(t, time.Now(), "client.example")
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	entry["certificate"], entry["type"] = certificate, "client"
	if _, err := members[0].Do(t.Context(), http.MethodPost, "/1.0/certificates", entry); err != nil {
		t.Fatal(err)
	}
	o := outsider{t, &pair}
	for _, m := range members {
		eventually(t, func() string {
			if code, answer := o.ask(m, http.MethodGet, "/1.0/instances", nil); code != http.StatusOK {
				return fmt.Sprintf("a new client gets %d %s", code, answer.Error)
			}
			return ""
		})
	}
	return o
}

func (o outsider) fingerprint() string { return client.Fingerprint(o.pair.Leaf) }

func (o outsider) tls() *tls.Config {
	cfg := &tls.Config{InsecureSkipVerify: true} // the test knows whom it called
	if o.pair != nil {
		cfg.Certificates = []tls.Certificate{*o.pair}
	}
	return cfg
}

// ask sends a request and returns the status and the answer.
func (o outsider) ask(m *lab.Member, method, path string, body any) (int, api.Response) {
	o.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+listens(o.t, m)+path, strings.NewReader(string(encoded)))
	if err != nil {
		o.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: o.tls()}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer api.Response
	_ = json.NewDecoder(response.Body).Decode(&answer) // an image is none
	return response.StatusCode, answer
}

// attach connects a websocket and returns the status of the upgrade.
func (o outsider) attach(m *lab.Member, path string) (*websocket.Conn, int) {
	o.t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: o.tls(), HandshakeTimeout: time.Minute}
	conn, response, err := dialer.DialContext(o.t.Context(), "wss://"+listens(o.t, m)+path, nil)
	if response == nil {
		o.t.Fatal(err)
	}
	_ = response.Body.Close() // of a websocket: the connection is conn's
	return conn, response.StatusCode
}

// listens is the address on which a member serves its API.
func listens(t *testing.T, m *lab.Member) string {
	t.Helper()
	var shown struct{ Config map[string]string }
	if err := m.Get(t.Context(), "/1.0", &shown); err != nil {
		t.Fatal(err)
	}
	return shown.Config["core.https_address"]
}

// ends reads until the other side has closed the connection.
func ends(t *testing.T, conn *websocket.Conn, what string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			if netErr, is := err.(interface{ Timeout() bool }); is && netErr.Timeout() {
				t.Errorf("%s is still open a minute after the client was removed", what)
			}
			return
		}
	}
}

// begun is what an operation's answer says.
type begun struct {
	path     string
	metadata struct {
		FDs     map[string]string `json:"fds"`
		Secret  string            `json:"secret"`
		Secrets map[string]string `json:"secrets"`
	}
}

func (o outsider) begin(m *lab.Member, path string, body any) begun {
	o.t.Helper()
	code, answer := o.ask(m, http.MethodPost, path, body)
	if code != http.StatusAccepted {
		o.t.Fatalf("POST %s: %d %s", path, code, answer.Error)
	}
	var op struct{ Metadata json.RawMessage }
	b := begun{path: answer.Operation}
	if err := json.Unmarshal(answer.Metadata, &op); err != nil {
		o.t.Fatal(err)
	}
	if err := json.Unmarshal(op.Metadata, &b.metadata); err != nil {
		o.t.Fatal(err)
	}
	return b
}

// A client that is removed is out, on every member, with all that it left: connections,
// secrets of commands and consoles, tokens, and the secrets of images.
func TestARemovedClientIsOut(t *testing.T) {
	members := lab.Cluster(t, 2)
	first, second := members[0], members[1]
	first.Busybox()
	if err := first.Launch(t.Context(), "c1"); err != nil { // on either member
		t.Fatal(err)
	}
	gone := newOutsider(t, members, object{"name": "gone"})
	stays := newOutsider(t, members, object{"name": "stays"})
	nobody := outsider{t, nil}
	var image struct{ Target string }
	if err := first.Get(t.Context(), "/1.0/images/aliases/busybox", &image); err != nil {
		t.Fatal(err)
	}

	// It listens on the member that is not asked for its removal.
	events, code := gone.attach(second, "/1.0/events")
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("listening answered %d", code)
	}
	defer events.Close()
	// Nobody else, who shows no certificate, is attached with its secret.
	console := gone.begin(first, "/1.0/instances/c1/console", object{})
	attached, code := nobody.attach(second, console.path+"/websocket?secret="+console.metadata.FDs["0"])
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("a stranger with the secret got %d; stock clients come without a certificate", code)
	}
	defer attached.Close()
	// Another client's certificate does not do.
	restricted := newOutsider(t, members, object{"name": "restricted", "restricted": true, "projects": []string{"default"}})
	if _, code := restricted.attach(first, console.path+"/websocket?secret="+console.metadata.FDs["control"]); code != http.StatusForbidden {
		t.Errorf("another restricted client got %d with the secret of a console; want 403", code)
	}
	token := gone.begin(second, "/1.0/certificates", object{"name": "again", "type": "client", "token": true})
	join := gone.begin(second, "/1.0/cluster/members", object{"server_name": "m3"})
	picture := gone.begin(second, "/1.0/images/"+image.Target+"/secret", object{})
	kept := stays.begin(second, "/1.0/certificates", object{"name": "friend", "type": "client", "token": true})
	command := gone.begin(second, "/1.0/instances/c1/exec", object{"command": []string{"cat"}, "wait-for-websocket": true})

	if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/certificates/"+gone.fingerprint(), nil); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		// The member that was not asked may hear of it a moment later.
		eventually(t, func() string {
			if code, _ := gone.ask(m, http.MethodGet, "/1.0/instances", nil); code != http.StatusForbidden {
				return fmt.Sprintf("m%d answers the removed client %d; want 403", i+1, code)
			}
			return ""
		})
		for _, who := range []outsider{gone, nobody, stays} {
			// Whoever comes with it: the secret is dead.
			if conn, code := who.attach(m, command.path+"/websocket?secret="+command.metadata.FDs["0"]); code < 400 {
				_ = conn.Close()
				t.Errorf("m%d lets in with the secret of a removed client: %d", i+1, code)
			}
		}
		certificate, _ := newCertificate(t, time.Now(), "back.example")
		code, answer := nobody.ask(m, http.MethodPost, "/1.0/certificates", object{"type": "client", "certificate": certificate, "password": token.metadata.Secret})
		if code != http.StatusForbidden {
			t.Errorf("m%d answers the token of a removed client %d %s; want 403", i+1, code, answer.Error)
		}
		code, answer = nobody.ask(m, http.MethodGet, "/1.0/images/"+image.Target+"/export?secret="+url.QueryEscape(picture.metadata.Secret), nil)
		if code != http.StatusNotFound && code != http.StatusForbidden {
			t.Errorf("m%d answers the image secret of a removed client %d %s; want 404", i+1, code, answer.Error)
		}
	}
	ends(t, events, "its connection to the other member")
	ends(t, attached, "a console that it began")
	for _, what := range []begun{token, join, picture, console} {
		var op struct{ Status, Err string }
		if err := first.Get(t.Context(), what.path+"/wait?timeout=60", &op); err != nil || op.Status != "Cancelled" && op.Status != "Failure" {
			t.Errorf("what it began is %s (%s), %v; want it to have ended", op.Status, op.Err, err)
		}
	}
	// What others made is as good as before.
	certificate, _ := newCertificate(t, time.Now(), "friend.example")
	if code, answer := nobody.ask(first, http.MethodPost, "/1.0/certificates", object{"type": "client", "certificate": certificate, "password": kept.metadata.Secret}); code != http.StatusCreated {
		t.Errorf("the token of a client that stays is answered %d %s; want 201", code, answer.Error)
	}
}

// A client that becomes restricted keeps what it began in its projects, and nothing else.
func TestARestrictedClientsTokensAreOut(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	if _, err := m.Do(t.Context(), http.MethodPatch, "/1.0", object{"config": object{"core.https_address": m.Address()}}); err != nil {
		t.Fatal(err)
	}
	narrowed, nobody := newOutsider(t, []*lab.Member{m}, object{"name": "narrowed"}), outsider{t, nil}
	token := narrowed.begin(m, "/1.0/certificates", object{"name": "wide", "type": "client", "token": true})
	put := object{"name": "narrowed", "type": "client", "restricted": true, "projects": []string{"default"}}
	if _, err := m.Do(t.Context(), http.MethodPut, "/1.0/certificates/"+narrowed.fingerprint(), put); err != nil {
		t.Fatal(err)
	}
	certificate, _ := newCertificate(t, time.Now(), "wide.example")
	code, answer := nobody.ask(m, http.MethodPost, "/1.0/certificates", object{"type": "client", "certificate": certificate, "password": token.metadata.Secret})
	if code != http.StatusForbidden {
		t.Errorf("the unrestricted token of a client that is restricted by now is answered %d %s; want 403", code, answer.Error)
	}
}
