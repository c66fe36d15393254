// Package pki holds the certificates a member lives by: the cluster's own
// certificate, which clients pin; the certificate authority that admits
// members; and this member's certificate, signed by that authority.
//
// It never decides whom to trust: it parses, signs and stores, and the trust
// store in the state plane says who may come in. It never replaces a key that
// it finds damaged, because clients and members pin what is there.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"
)

// The files of an identity inside its directory. A key is readable by its
// owner only.
const (
	ServerCertificateFile = "server.crt"
	ServerKeyFile         = "server.key"
	AuthorityFile         = "ca.crt"
	AuthorityKeyFile      = "ca.key"
	MemberCertificateFile = "member.crt"
	MemberKeyFile         = "member.key"
)

// MemberServerName is a name that every member certificate carries, so that
// members verify each other by the authority and by the member's ID, never by
// a host name: addresses change, identities do not.
const MemberServerName = "member.muster.internal"

// Pair is a certificate with its private key. It is immutable.
type Pair struct {
	// Leaf is the parsed certificate.
	Leaf *x509.Certificate
	// CertificatePEM is the certificate as it stands in its file.
	CertificatePEM []byte
	keyPEM         []byte
	tls            tls.Certificate
}

// TLS returns the pair for use in a tls.Config. The caller must not change it.
func (p *Pair) TLS() *tls.Certificate { return &p.tls }

// Fingerprint returns the lower-case hex SHA-256 of the certificate, which is
// what clients pin.
func (p *Pair) Fingerprint() string { return Fingerprint(p.Leaf) }

// Options says what Open writes into certificates that it has to make.
type Options struct {
	// MemberID is the identity of this member. Empty: keep the one that the
	// member certificate names, or choose a random UUID at first start.
	MemberID string
	// Hosts are names and IP addresses that the cluster certificate also
	// answers for, besides localhost and the loopback addresses.
	Hosts []string
	// Now is the time the certificates count from; the zero value means the
	// present.
	Now time.Time
}

// Identity is what a member shows to the world and to its peers. Its methods
// may be called from any goroutine.
type Identity struct {
	dir       string
	memberID  string
	server    atomic.Pointer[Pair]
	member    *Pair
	authority *Pair
	pool      *x509.CertPool
}

// MemberID returns the ID in the subject of the member certificate.
func (i *Identity) MemberID() string { return i.memberID }

// Server returns the cluster certificate in use now.
func (i *Identity) Server() *Pair { return i.server.Load() }

// Member returns this member's own certificate.
func (i *Identity) Member() *Pair { return i.member }

// Authority returns the certificate of the cluster's authority.
func (i *Identity) Authority() *x509.Certificate { return i.authority.Leaf }

// Authorities returns the pool that member certificates are verified against.
// The caller must not change it.
func (i *Identity) Authorities() *x509.CertPool { return i.pool }
