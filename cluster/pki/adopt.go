package pki

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"muster/state"
)

// Shared is what all members of a cluster have in common, in PEM form. It holds
// private keys: it may travel to a member that has just been admitted, over a
// connection that it has verified, and nowhere else.
type Shared struct {
	AuthorityCertificate string `json:"authority_certificate"`
	AuthorityKey         string `json:"authority_key"`
	ServerCertificate    string `json:"server_certificate"`
	ServerKey            string `json:"server_key"`
}

// Shared returns what a joining member is given.
func (i *Identity) Shared() Shared {
	server := i.Server()
	return Shared{
		AuthorityCertificate: string(i.authority.CertificatePEM), AuthorityKey: string(i.authority.keyPEM),
		ServerCertificate: string(server.CertificatePEM), ServerKey: string(server.keyPEM),
	}
}

// Adopt puts the identity of a member of another cluster into dir, in place of what
// is there: what the cluster shares, and the member's own certificate with the key
// that MakeRequest made for it. The parts are checked against each other first
// (state.ErrInvalid); a crash leaves the old identity or the new one. No Identity of
// dir may be in use.
func Adopt(dir string, shared Shared, memberCertificate, memberKey []byte) error {
	authority, err := newPair([]byte(shared.AuthorityCertificate), []byte(shared.AuthorityKey))
	if err != nil {
		return state.Errorf(state.ErrInvalid, "the cluster's authority: %w", err)
	}
	server, err := newPair([]byte(shared.ServerCertificate), []byte(shared.ServerKey))
	if err != nil {
		return state.Errorf(state.ErrInvalid, "the cluster's certificate: %w", err)
	}
	member, err := newPair(memberCertificate, memberKey)
	if err != nil {
		return state.Errorf(state.ErrInvalid, "the member's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.Leaf)
	if _, err := member.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return state.Errorf(state.ErrInvalid, "the member's certificate was not signed by the cluster's authority: %w", err)
	}
	return store{dir: dir}.installAll([]part{
		{AuthorityKeyFile, authority.keyPEM},
		{AuthorityFile, authority.CertificatePEM},
		{ServerKeyFile, server.keyPEM},
		{ServerCertificateFile, server.CertificatePEM},
		{MemberKeyFile, member.keyPEM},
		{MemberCertificateFile, member.CertificatePEM},
	})
}

// part is a file of an identity.
type part struct {
	name string
	data []byte
}

// installAll puts files into place, as one step as far as a crash can tell.
func (s store) installAll(parts []part) error {
	var pending []byte
	for _, p := range parts {
		// A certificate file may hold a chain: all of it goes along.
		for block, rest := pem.Decode(p.data); block != nil; block, rest = pem.Decode(rest) {
			pending = append(pending, pem.EncodeToMemory(&pem.Block{
				Type: block.Type, Bytes: block.Bytes, Headers: map[string]string{fileHeader: p.name},
			})...)
		}
	}
	if err := s.write(pendingFile, pending, 0o600); err != nil {
		return err
	}
	return s.finishPending()
}

// Files are the names of the files of an identity, in order.
func Files() []string { return slices.Sorted(maps.Keys(modes)) }

// Discard removes the identity in dir, so that the next Open makes a new one. It may be
// repeated after a crash. No Identity of dir may be in use.
func Discard(dir string) error {
	var failed []error
	// What could bring files back goes first.
	for _, name := range append([]string{pendingFile}, Files()...) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// GossipKey is the key that the members of the cluster encrypt their gossip with: 32
// bytes that follow from the authority's key, which they all have and nobody else (HKDF,
// RFC 5869).
func (i *Identity) GossipKey() ([]byte, error) {
	return hkdf.Key(sha256.New, i.authority.keyPEM, nil, "muster gossip", 32)
}
