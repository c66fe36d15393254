package rest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"time"

	"muster/cluster"
	"muster/cluster/pki"
	"muster/rpc/rest/api"
	"muster/rpc/rest/password"
	"muster/state"
	"muster/state/store"
)

// CertificateStore changes the trust store. The daemon cuts the connections of a
// certificate whenever its entry changes or goes, on every member.
type CertificateStore interface {
	// CreateCertificate fails with state.ErrExists when it is trusted already.
	CreateCertificate(ctx context.Context, certificate state.Certificate) error
	// UpdateCertificate replaces name, type, restriction and projects of the
	// entry with certificate's fingerprint; see ProfileStore.UpdateProfile for
	// expect.
	UpdateCertificate(ctx context.Context, certificate state.Certificate, expect state.Revision) error
	DeleteCertificate(ctx context.Context, fingerprint string, expect state.Revision) error
	// CreateToken records the token, giving it an ID, and starts the token
	// operation that shows it with metadata. Cancelling the operation withdraws
	// the token. A token of that name that still waits is state.ErrExists.
	CreateToken(ctx context.Context, token state.Token, metadata map[string]any) (cluster.OperationInfo, error)
	// TokenExpiry is when a token that is made now expires.
	TokenExpiry() time.Time
	// UseToken adds the certificate, uses the token up and ends its operation. A
	// token that was used, withdrawn or has expired in the meantime is
	// state.ErrForbidden.
	UseToken(ctx context.Context, token state.Token, certificate state.Certificate) error
}

// certificates serves /1.0/certificates, the trust store.
type certificates struct {
	view       func() *store.View
	store      CertificateStore
	operations OperationStore
	host       Host
	damper     *password.Damper
}

// trustPassword is the setting that lets strangers add their certificate; the
// store holds its hash.
const trustPassword = "core.trust_password"

func (x certificates) routes() []route {
	return []route{
		{
			pattern: "GET /1.0/certificates", access: trusted, handle: x.list,
			summary: "List trusted certificates", returns: []api.Certificate{},
			description: "Restricted clients see their own.",
			query:       []parameter{recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/certificates", access: public, tells: &news{action: "certificate-token-created", source: "/1.0/certificates", whole: true, when: isToken}, handle: x.create,
			announces: []string{"certificate_token", "certificate_project"},
			summary:   "Trust a certificate, or make a token", body: api.CertificatesPost{}, status: http.StatusCreated,
			description: "Without a certificate in the body, the one of the connection is meant. Untrusted callers need " +
				"the trust password or a token. With `token` the answer is a token operation (202).",
		},
		{
			pattern: "GET /1.0/certificates/{fingerprint}", access: trusted, handle: x.get,
			summary: "Show a trusted certificate", returns: api.Certificate{}, tagged: true,
			description: "The fingerprint may be shortened as long as it is unique.",
		},
		{
			pattern: "PUT /1.0/certificates/{fingerprint}", access: admin, handle: x.put,
			announces: []string{"certificate_update"},
			summary:   "Replace a certificate's name, type and restriction", body: api.CertificatePut{}, tagged: true,
		},
		{
			pattern: "PATCH /1.0/certificates/{fingerprint}", access: admin, handle: x.patch,
			summary: "Change parts of a certificate's entry", body: api.CertificatePut{}, tagged: true,
		},
		{
			pattern: "DELETE /1.0/certificates/{fingerprint}", access: admin, handle: x.delete,
			summary: "Remove a certificate", async: true, tagged: true, returns: api.Operation{},
			description: "The client is out when the answer arrives; the operation has nothing left to do.",
		},
	}
}

func (x certificates) list(r *http.Request) (any, error) {
	var visible []*state.Certificate
	for _, certificate := range x.view().Certificates() {
		if sees(CallerOf(r.Context()), certificate) {
			visible = append(visible, certificate)
		}
	}
	return listing(r, visible, rows[*state.Certificate]{
		url:  func(c *state.Certificate) string { return path("certificates", c.Fingerprint) },
		show: func(c *state.Certificate) any { return showCertificate(c) },
	})
}

func (x certificates) get(r *http.Request) (any, error) {
	certificate, err := x.view().Certificate(r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	if !sees(CallerOf(r.Context()), certificate) {
		return nil, state.Errorf(state.ErrNotFound, "certificate %q not found", r.PathValue("fingerprint"))
	}
	return tagged(etag(certificate.Revision), showCertificate(certificate)), nil
}

func (x certificates) create(r *http.Request) (any, error) {
	req, err := decode[api.CertificatesPost](r)
	if err != nil {
		return nil, err
	}
	caller := CallerOf(r.Context())
	if req.Token {
		return x.createToken(r, caller, req)
	}
	certificate, err := x.presented(caller, req.CertificatePut)
	if err != nil {
		return nil, err
	}
	token, err := x.admit(caller, req, &certificate)
	if err != nil {
		return nil, err
	}
	if token != nil {
		err = x.store.UseToken(r.Context(), *token, certificate)
	} else {
		err = x.store.CreateCertificate(r.Context(), certificate)
	}
	return created(path("certificates", certificate.Fingerprint)), err
}

// presented returns the entry that the request asks for.
func (x certificates) presented(caller Caller, req api.CertificatePut) (state.Certificate, error) {
	var leaf *x509.Certificate
	var err error
	switch {
	case req.Certificate != "":
		leaf, err = pki.ParseClientCertificate(req.Certificate, time.Now())
	case caller.Certificate != nil:
		leaf, err = x509.ParseCertificate(caller.Certificate)
	default:
		err = state.Errorf(state.ErrInvalid, "field \"certificate\" is missing, and the connection was made without a client certificate")
	}
	if err != nil {
		return state.Certificate{}, err
	}
	entry := state.Certificate{
		Fingerprint: pki.Fingerprint(leaf), PEM: pki.EncodeCertificate(leaf),
		Name: req.Name, Type: req.Type, Restricted: req.Restricted, Projects: req.Projects,
	}
	if entry.Name == "" {
		entry.Name = hostOf(caller.Address)
	}
	return entry, x.check(&entry)
}

// check fills in the type and refuses what no entry can be.
func (x certificates) check(entry *state.Certificate) error {
	if entry.Type == "" {
		entry.Type = "client"
	}
	if entry.Type != "client" && entry.Type != "metrics" {
		return state.Errorf(state.ErrInvalid, "field \"type\" is %q, want client or metrics", entry.Type)
	}
	if len(entry.Projects) > 0 && !entry.Restricted {
		return state.Errorf(state.ErrInvalid, "field \"projects\" is only for restricted certificates: set \"restricted\" too")
	}
	for _, project := range entry.Projects {
		if _, err := x.view().Project(project); err != nil {
			return state.Errorf(state.ErrInvalid, "field \"projects\": %w", err)
		}
	}
	return nil
}

// admit decides whether the caller may add entry: unrestricted clients may, and
// others who know the trust password or a token, which is returned and whose
// terms the entry then takes.
func (x certificates) admit(caller Caller, req api.CertificatesPost, entry *state.Certificate) (*state.Token, error) {
	if caller.Trust == Full {
		return nil, nil
	}
	if caller.Trust != Untrusted {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: this certificate may not add others")
	}
	if entry.Type != "client" {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: only certificates of type client can be added with a password")
	}
	if req.Password == "" {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: field \"password\" must be the trust password or a token")
	}
	now, source := time.Now(), hostOf(caller.Address)
	if wait := x.damper.Wait(source, now); wait > 0 {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: too many wrong passwords, try again in %s", wait.Round(time.Second))
	}
	if found := x.tokenFor(req.Password, now); found != nil {
		entry.Name, entry.Restricted, entry.Projects = found.Name, found.Restricted, found.Projects
		x.damper.Right(source)
		return found, nil
	}
	if hash := x.view().Setting("", trustPassword); hash != "" && password.Matches(hash, req.Password) {
		x.damper.Right(source)
		return nil, nil
	}
	x.damper.Wrong(source, time.Now()) // the check takes its time
	return nil, state.Errorf(state.ErrForbidden, "not authorized: the trust password or token is wrong, used or expired")
}

// tokenFor finds the token whose secret was given, alone or within the whole
// token as people hand it on.
func (x certificates) tokenFor(given string, now time.Time) *state.Token {
	secret := given
	if token, err := api.ParseCertificateAddToken(given); err == nil {
		secret = token.Secret
	}
	hash := hashSecret(secret)
	for _, token := range x.view().Tokens() {
		same := subtle.ConstantTimeCompare([]byte(token.SecretHash), []byte(hash)) == 1
		if same && token.Purpose == "client" && (token.ExpiresAt.IsZero() || now.Before(token.ExpiresAt)) {
			return token
		}
	}
	return nil
}

// hashSecret is what is kept of a secret. Secrets are 256 random bits, so a
// plain hash is enough.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// newSecret returns 256 random bits in hex.
func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return hex.EncodeToString(secret)
}

func (x certificates) createToken(r *http.Request, caller Caller, req api.CertificatesPost) (any, error) {
	if caller.Trust != Full {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: only unrestricted clients make tokens")
	}
	entry := state.Certificate{Name: req.Name, Type: req.Type, Restricted: req.Restricted, Projects: req.Projects}
	if err := x.check(&entry); err != nil {
		return nil, err
	}
	switch {
	case entry.Name == "":
		return nil, state.Errorf(state.ErrInvalid, "field \"name\" is missing: a token needs the name of its client")
	case req.Certificate != "":
		return nil, state.Errorf(state.ErrInvalid, "fields \"certificate\" and \"token\" exclude each other")
	case entry.Type != "client":
		return nil, state.Errorf(state.ErrInvalid, "field \"type\" is %q, want client: tokens are for clients", entry.Type)
	}
	addresses := x.host.addresses()
	if len(addresses) == 0 {
		return nil, state.Errorf(state.ErrConflict, "nobody could use a token: set core.https_address first")
	}
	secret, serverPrint := newSecret(), pki.Fingerprint(x.host.Certificate())
	now := time.Now().UTC()
	token := state.Token{
		Purpose: "client", Name: entry.Name, SecretHash: hashSecret(secret),
		Restricted: entry.Restricted, Projects: entry.Projects, CreatedAt: now,
		ExpiresAt: x.store.TokenExpiry(),
	}
	// The shape that clients build the printed token from (LXD REST API,
	// "certificate_token").
	metadata := map[string]any{
		"secret": secret, "fingerprint": serverPrint, "addresses": addresses,
		"request": map[string]any{
			"name": entry.Name, "type": entry.Type, "restricted": entry.Restricted, "projects": entry.Projects, "token": true,
		},
		"expiresAt": token.ExpiresAt.Format(time.RFC3339),
	}
	op, err := x.store.CreateToken(r.Context(), token, metadata)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x certificates) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.CertificatePut](r)
	if err != nil {
		return nil, err
	}
	current, err := x.view().Certificate(r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	return nil, x.update(r.Context(), current, req, expect)
}

func (x certificates) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		current, err := x.view().Certificate(r.PathValue("fingerprint"))
		if err != nil {
			return 0, nil, err
		}
		req := showCertificate(current).CertificatePut
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return current.Revision, func(expect state.Revision) error {
			return x.update(r.Context(), current, req, expect)
		}, nil
	})
}

func (x certificates) update(ctx context.Context, current *state.Certificate, req api.CertificatePut, expect state.Revision) error {
	if req.Certificate != "" {
		leaf, err := pki.ParseCertificate(req.Certificate)
		if err != nil {
			return err
		}
		if pki.Fingerprint(leaf) != current.Fingerprint {
			return state.Errorf(state.ErrInvalid, "field \"certificate\" cannot change: add the new certificate, then remove this one")
		}
	}
	entry := state.Certificate{
		Fingerprint: current.Fingerprint, PEM: current.PEM,
		Name: req.Name, Type: req.Type, Restricted: req.Restricted, Projects: req.Projects,
	}
	if err := x.check(&entry); err != nil {
		return err
	}
	return x.store.UpdateCertificate(ctx, entry, expect)
}

func (x certificates) delete(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	current, err := x.view().Certificate(r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	if err := x.store.DeleteCertificate(r.Context(), current.Fingerprint, expect); err != nil {
		return nil, err
	}
	return done(r, x.operations, "Removing trusted certificate", "certificates", path("certificates", current.Fingerprint))
}

// sees reports whether the caller may see an entry of the trust store.
func sees(caller Caller, certificate *state.Certificate) bool {
	return caller.Trust == Full || caller.Name == certificate.Fingerprint
}

// showCertificate turns an entry into what clients see.
func showCertificate(c *state.Certificate) api.Certificate {
	return api.Certificate{Fingerprint: c.Fingerprint, CertificatePut: api.CertificatePut{
		Name: c.Name, Type: c.Type, Restricted: c.Restricted, Certificate: c.PEM,
		Projects: append([]string{}, c.Projects...),
	}}
}

// hostOf is an address without its port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return strings.Trim(address, "[]")
	}
	return host
}
