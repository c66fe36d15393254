package rest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/cluster/pki"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

func TestCertificates(t *testing.T) {
	x := newRealm(t)
	c := x.local
	own := selfSigned(t, "laptop", time.Now().Add(time.Hour))
	print := pki.Fingerprint(own.Leaf)
	der := base64.StdEncoding.EncodeToString(own.Leaf.Raw)

	got := c.must("POST /1.0/certificates", fmt.Sprintf(`{"type": "client", "name": "laptop", "certificate": %q}`, der), nil)
	if got.status != http.StatusCreated || got.http.Header.Get("Location") != "/1.0/certificates/"+print {
		t.Errorf("create: %d, Location %q; want 201 and the fingerprint", got.status, got.http.Header.Get("Location"))
	}
	c.refused("POST /1.0/certificates", fmt.Sprintf(`{"certificate": %q}`, der), 409, "Certificate already in trust store")
	var urls []string
	c.must("GET /1.0/certificates", "", &urls)
	if !slices.Equal(urls, []string{"/1.0/certificates/" + print}) {
		t.Errorf("list %v; want the one", urls)
	}
	var shown api.Certificate
	c.must("GET /1.0/certificates/"+print[:12], "", &shown)
	want := api.Certificate{Fingerprint: print, CertificatePut: api.CertificatePut{
		Name: "laptop", Type: "client", Certificate: pki.EncodeCertificate(own.Leaf), Projects: []string{},
	}}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("get by a short fingerprint (-want +got):\n%s", diff)
	}
	client := x.remote(own)
	var server api.Server
	client.must("GET /1.0", "", &server)
	if server.Auth != "trusted" {
		t.Errorf("auth %q; want trusted", server.Auth)
	}

	c.must("PUT /1.0/certificates/"+print, `{"name": "desk", "type": "client", "restricted": true, "projects": ["default"]}`, nil)
	c.must("PATCH /1.0/certificates/"+print, `{"name": "table"}`, nil)
	c.must("GET /1.0/certificates/"+print, "", &shown)
	if shown.Name != "table" || !shown.Restricted || !slices.Equal(shown.Projects, []string{"default"}) {
		t.Errorf("after PUT and PATCH: %+v", shown)
	}
	got = c.must("DELETE /1.0/certificates/"+print, "", nil)
	if got.status != http.StatusAccepted {
		t.Errorf("delete: %d; want 202", got.status)
	}
	client.refused("GET /1.0/profiles", "", 403, "not trusted")
}

func TestCertificatesRefuse(t *testing.T) {
	x := newRealm(t)
	print := pki.Fingerprint(selfSigned(t, "x", time.Now()).Leaf)
	x.trust(state.Certificate{Name: "laptop"})
	entry := x.store.View().Certificates()[0]
	expired := pki.EncodeCertificate(selfSigned(t, "old", time.Now().Add(-time.Minute)).Leaf)
	other := pki.EncodeCertificate(selfSigned(t, "other", time.Now().Add(time.Hour)).Leaf)
	quoted := func(text string) string { encoded, _ := json.Marshal(text); return string(encoded) }
	for name, row := range map[string]struct {
		line, body string
		status     int
		words      string
	}{
		"no certificate on the local socket":   {"POST /1.0/certificates", `{"name": "x"}`, 400, `"certificate" is missing`},
		"a certificate that is none":           {"POST /1.0/certificates", `{"certificate": "hello"}`, 400, "certificate"},
		"one that has expired":                 {"POST /1.0/certificates", `{"certificate": ` + quoted(expired) + `}`, 400, "expired"},
		"an unknown type":                      {"POST /1.0/certificates", `{"type": "keyring", "certificate": ` + quoted(other) + `}`, 400, "client or metrics"},
		"projects without restriction":         {"POST /1.0/certificates", `{"projects": ["default"], "certificate": ` + quoted(other) + `}`, 400, "restricted"},
		"a project that is not there":          {"POST /1.0/certificates", `{"restricted": true, "projects": ["p"], "certificate": ` + quoted(other) + `}`, 400, `project "p" not found`},
		"one that is not there":                {"GET /1.0/certificates/" + print, "", 404, "not found"},
		"deleting one that is not there":       {"DELETE /1.0/certificates/" + print, "", 404, "not found"},
		"changing the certificate of an entry": {"PUT /1.0/certificates/" + entry.Fingerprint, `{"certificate": ` + quoted(other) + `}`, 400, "cannot change"},
		"a token without an address":           {"POST /1.0/certificates", `{"token": true, "name": "x"}`, 409, "core.https_address"},
		"a token without a name":               {"POST /1.0/certificates", `{"token": true}`, 400, `"name" is missing`},
		"a token with a certificate":           {"POST /1.0/certificates", `{"token": true, "name": "x", "certificate": ` + quoted(other) + `}`, 400, "exclude each other"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *x.local
			c.t = t
			c.refused(row.line, row.body, row.status, row.words)
		})
	}
	if got := len(x.store.View().Certificates()); got != 1 {
		t.Errorf("%d certificates after all refusals; want 1", got)
	}
}

func TestTrustPassword(t *testing.T) {
	x := newRealm(t)
	own := selfSigned(t, "laptop", time.Now().Add(time.Hour))
	client := x.remote(own)
	client.refused("POST /1.0/certificates", `{"type": "client", "password": "sesame"}`, 403, "wrong, used or expired")
	x.local.must("PATCH /1.0", `{"config": {"core.trust_password": "sesame"}}`, nil)
	client.refused("POST /1.0/certificates", `{"type": "client"}`, 403, "must be the trust password")
	client.refused("POST /1.0/certificates", `{"type": "metrics", "password": "sesame"}`, 403, "only certificates of type client")
	client.refused("POST /1.0/certificates", `{"type": "client", "password": "barley"}`, 403, "wrong")
	x.remote(nil).refused("POST /1.0/certificates", `{"type": "client", "password": "sesame"}`, 400, "without a client certificate")

	client.must("POST /1.0/certificates", `{"type": "client", "password": "sesame"}`, nil)
	client.must("GET /1.0/profiles", "", nil)
	if entry := x.store.View().Certificates()[0]; entry.Name != "127.0.0.1" || entry.Restricted {
		t.Errorf("entry %+v; want it named by its address, unrestricted", entry)
	}
}

func TestGuessingTheTrustPasswordIsSlow(t *testing.T) {
	x := newRealm(t)
	x.local.must("PATCH /1.0", `{"config": {"core.trust_password": "sesame"}}`, nil)
	client := x.remote(selfSigned(t, "thief", time.Now().Add(time.Hour)))
	for i := range 3 {
		client.refused("POST /1.0/certificates", fmt.Sprintf(`{"password": "guess %d"}`, i), 403, "wrong")
	}
	client.refused("POST /1.0/certificates", `{"password": "sesame"}`, 403, "too many wrong passwords")
}

func TestTrustTokens(t *testing.T) {
	x := newRealm(t)
	x.local.must("PATCH /1.0", `{"config": {"core.https_address": "127.0.0.1:8443"}}`, nil)
	good := 24 * time.Hour
	token := func() (api.Operation, api.CertificateAddToken) {
		var op api.Operation
		x.local.must("POST /1.0/certificates", `{"token": true, "name": "laptop", "type": "client", "restricted": true, "projects": ["default"]}`, &op)
		// What the stock client reads from the operation.
		request, _ := op.Metadata["request"].(map[string]any)
		text := func(m map[string]any, key string) string { value, _ := m[key].(string); return value }
		expires, err := time.Parse(time.RFC3339, text(op.Metadata, "expiresAt"))
		if err != nil || time.Until(expires) > good || time.Until(expires) < good-time.Minute {
			t.Errorf("expiresAt %v, %v; want %v from now", op.Metadata["expiresAt"], err, good)
		}
		made := api.CertificateAddToken{
			ClientName: text(request, "name"), Fingerprint: text(op.Metadata, "fingerprint"), Secret: text(op.Metadata, "secret"), ExpiresAt: expires,
		}
		for _, address := range op.Metadata["addresses"].([]any) {
			made.Addresses = append(made.Addresses, address.(string))
		}
		return op, made
	}
	x.local.must("PATCH /1.0", `{"config": {"core.remote_token_expiry": "2H"}}`, nil)
	good = 2 * time.Hour
	token()
	x.local.must("PATCH /1.0", `{"config": {"core.remote_token_expiry": ""}}`, nil)
	good = 24 * time.Hour
	op, made := token()
	if op.Class != "token" || op.Status != "Running" || !op.MayCancel {
		t.Errorf("operation %+v; want a running token that may be cancelled", op)
	}
	if made.ClientName != "laptop" || made.Fingerprint != pki.Fingerprint(x.identity.Leaf) || !slices.Equal(made.Addresses, []string{"127.0.0.1:8443"}) {
		t.Errorf("token %+v; want laptop, the server's fingerprint and its address", made)
	}
	for _, stored := range x.store.View().Tokens() {
		if strings.Contains(stored.SecretHash, made.Secret) {
			t.Error("the store holds the token's secret")
		}
	}

	t.Run("one of many clients gets in", func(t *testing.T) {
		var clients sync.WaitGroup
		// Fewer than it takes to be made to wait for wrong secrets.
		statuses := make([]int, 3)
		for i := range statuses {
			client := x.remote(selfSigned(t, "laptop", time.Now().Add(time.Hour)))
			clients.Go(func() {
				statuses[i] = client.do("POST /1.0/certificates", fmt.Sprintf(`{"type": "client", "password": %q}`, made.String())).status
			})
		}
		clients.Wait()
		slices.Sort(statuses)
		if !slices.Equal(statuses, []int{201, 403, 403}) {
			t.Errorf("statuses %v; want one 201", statuses)
		}
		entries := x.store.View().Certificates()
		if len(entries) != 1 || entries[0].Name != "laptop" || !entries[0].Restricted || !slices.Equal(entries[0].Projects, []string{"default"}) {
			t.Errorf("entries %+v; want the laptop on the token's terms", entries)
		}
		var ended api.Operation
		x.local.must("GET /1.0/operations/"+op.ID+"/wait", "", &ended)
		if ended.Status != "Success" {
			t.Errorf("the token's operation is %s; want Success", ended.Status)
		}
	})
	t.Run("a bare secret works too", func(t *testing.T) {
		_, made := token()
		client := x.remote(selfSigned(t, "laptop", time.Now().Add(time.Hour)))
		client.must("POST /1.0/certificates", fmt.Sprintf(`{"type": "client", "password": %q}`, made.Secret), nil)
		client.must("GET /1.0/profiles", "", nil)
	})
	t.Run("a cancelled one does not", func(t *testing.T) {
		op, made := token()
		x.local.must("DELETE /1.0/operations/"+op.ID, "", nil)
		client := x.remote(selfSigned(t, "laptop", time.Now().Add(time.Hour)))
		client.refused("POST /1.0/certificates", fmt.Sprintf(`{"type": "client", "password": %q}`, made.String()), 403, "")
		client.refused("GET /1.0/profiles", "", 403, "not trusted")
	})
	t.Run("an expired one does not", func(t *testing.T) {
		_, err := x.store.Apply(t.Context(), store.AddToken{Token: state.Token{
			ID: "old", Purpose: "client", Name: "old", SecretHash: hashSecret("secret"), CreatedAt: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(-time.Minute),
		}})
		if err != nil {
			t.Fatal(err)
		}
		client := x.remote(selfSigned(t, "late", time.Now().Add(time.Hour)))
		client.refused("POST /1.0/certificates", `{"type": "client", "password": "secret"}`, 403, "wrong, used or expired")
	})
}

func TestRestrictedClients(t *testing.T) {
	x := newRealm(t)
	_, err := x.store.Apply(t.Context(), store.CreateProject{Project: state.Project{Name: "other"}})
	if err != nil {
		t.Fatal(err)
	}
	client := x.trust(state.Certificate{Name: "tenant", Restricted: true, Projects: []string{"other"}})
	x.trust(state.Certificate{Name: "landlord"})

	client.must("POST /1.0/profiles?project=other", `{"name": "mine"}`, nil)
	for line, words := range map[string]string{
		"GET /1.0/profiles":                  `may not use project "default"`,
		"GET /1.0/profiles/default":          `may not use project "default"`,
		"POST /1.0/profiles?project=default": `may not use project "default"`,
		"PUT /1.0":                           "restricted to its projects",
		"POST /1.0/projects":                 "does not take POST",
		"DELETE /1.0/certificates/" + x.store.View().Certificates()[0].Fingerprint: "restricted to its projects",
	} {
		if got := client.do(line, `{"name": "x"}`); got.status != 403 && got.status != 405 || !strings.Contains(got.Error, words) {
			t.Errorf("%s: %d %q; want a refusal with %q", line, got.status, got.Error, words)
		}
	}
	client.refused("POST /1.0/certificates", `{"token": true, "name": "friend"}`, 403, "only unrestricted clients")
	var server api.Server
	client.must("GET /1.0?project=other", "", &server)
	if len(server.Config) != 0 {
		t.Errorf("config %v; a restricted client should not see it", server.Config)
	}
	var urls []string
	client.must("GET /1.0/projects?project=other", "", &urls)
	if !slices.Equal(urls, []string{"/1.0/projects/other"}) {
		t.Errorf("projects %v; want its own", urls)
	}
	client.must("GET /1.0/certificates?project=other", "", &urls)
	if len(urls) != 1 {
		t.Errorf("certificates %v; want its own", urls)
	}
	_, refusal := client.websocket("/1.0/events?project=other&type=logging", nil)
	if !strings.Contains(refusal, "unrestricted") {
		t.Errorf("logging events: %q; want a refusal", refusal)
	}
}

func TestMetricsClientsSeeNothingElse(t *testing.T) {
	x := newRealm(t)
	client := x.trust(state.Certificate{Name: "prometheus", Type: "metrics"})
	client.refused("GET /1.0/profiles", "", 403, "only read /1.0/metrics")
	client.refused("PUT /1.0", "{}", 403, "only read /1.0/metrics")
	got := client.must("GET /1.0", "", nil)
	if strings.Contains(string(got.Metadata), "environment") {
		t.Errorf("a metrics client sees %s", got.Metadata)
	}
}

func TestAnExpiredCertificateIsTrustedNoLonger(t *testing.T) {
	x := newRealm(t)
	own := selfSigned(t, "brief", time.Now().Add(-time.Second))
	_, err := x.store.Apply(t.Context(), store.AddCertificate{Certificate: state.Certificate{
		Fingerprint: pki.Fingerprint(own.Leaf), PEM: pki.EncodeCertificate(own.Leaf), Type: "client", Name: "brief",
	}})
	if err != nil {
		t.Fatal(err)
	}
	x.remote(own).refused("GET /1.0/profiles", "", 403, "not trusted")
}

func TestPagesOfOthersCannotUseABrowsersCertificate(t *testing.T) {
	x := newRealm(t)
	client := x.trust(state.Certificate{Name: "browser"})
	if got := client.do("POST /1.0/profiles", `{"name": "x"}`, "Sec-Fetch-Site", "cross-site"); got.status != 403 {
		t.Errorf("a cross-site POST: %d; want 403", got.status)
	}
	if got := client.do("POST /1.0/profiles", `{"name": "x"}`, "Sec-Fetch-Site", "same-origin"); got.status != 201 {
		t.Errorf("a same-origin POST: %d %s; want 201", got.status, got.Error)
	}
}
