package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/state"
)

// Open loads the identity in dir, making what is not there yet. The directory
// must exist, and only one process may open it at a time. A crash at any moment
// leaves either no pair or a whole one. Errors name the file and what to do;
// damaged files are never replaced.
func Open(dir string, opts Options) (*Identity, error) {
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	files := store{dir: dir}
	if err := files.finishPending(); err != nil {
		return nil, err
	}
	authority, err := files.loadOrMake(AuthorityFile, AuthorityKeyFile, func() (*Pair, error) {
		// Members signed by an authority that is gone could never be
		// verified again, so its loss must not pass for a first start.
		if files.exists(MemberCertificateFile) {
			return nil, state.Errorf(state.ErrConflict, "%s is missing though %s was signed with it: restore it from a backup",
				files.path(AuthorityFile), files.path(MemberCertificateFile))
		}
		return makeAuthority(opts.Now)
	})
	if err != nil {
		return nil, err
	}
	server, err := files.loadOrMake(ServerCertificateFile, ServerKeyFile, func() (*Pair, error) {
		return makeServer(opts.Hosts, opts.Now)
	})
	if err != nil {
		return nil, err
	}
	id := opts.MemberID
	member, err := files.loadOrMake(MemberCertificateFile, MemberKeyFile, func() (*Pair, error) {
		if id == "" {
			id = uuid.NewString()
		}
		return makeMember(authority, id, opts.Now)
	})
	if err != nil {
		return nil, err
	}
	return assemble(dir, opts.MemberID, authority, server, member)
}

func assemble(dir, wantID string, authority, server, member *Pair) (*Identity, error) {
	i := &Identity{dir: dir, memberID: MemberOf(member.Leaf), member: member, authority: authority, pool: x509.NewCertPool()}
	i.server.Store(server)
	i.pool.AddCert(authority.Leaf)
	files := store{dir: dir}
	if _, err := member.Leaf.Verify(x509.VerifyOptions{
		Roots: i.pool, CurrentTime: member.Leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, state.Errorf(state.ErrConflict, "%s was not signed by %s: restore the pair that belongs together: %w",
			files.path(MemberCertificateFile), files.path(AuthorityFile), err)
	}
	if i.memberID == "" {
		return nil, state.Errorf(state.ErrConflict, "%s names no member: restore it from a backup", files.path(MemberCertificateFile))
	}
	if wantID != "" && wantID != i.memberID {
		return nil, state.Errorf(state.ErrConflict, "%s belongs to member %s, but this member is %s: the directory mixes two members",
			files.path(MemberCertificateFile), i.memberID, wantID)
	}
	return i, nil
}

// ReplaceServer puts a new cluster certificate in place of the present one, on
// disk and for connections made from now on. The pair is checked first; errors
// are of kind state.ErrInvalid. It must not be called twice at once.
func (i *Identity) ReplaceServer(certPEM, keyPEM []byte) error {
	pair, err := serverPair(certPEM, keyPEM)
	if err != nil {
		return err
	}
	if err := (store{dir: i.dir}).install(ServerCertificateFile, ServerKeyFile, pair); err != nil {
		return err
	}
	i.server.Store(pair)
	return nil
}

// CheckServer refuses (state.ErrInvalid) what can't be a cluster certificate with its
// key at now. The certificate may be followed by those that lead to its authority.
func CheckServer(certPEM, keyPEM []byte, now time.Time) error {
	pair, err := serverPair(certPEM, keyPEM)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return state.Errorf(state.ErrInvalid, "the certificate expired on %s: make a new one", leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return state.Errorf(state.ErrInvalid, "the certificate is not valid before %s: check the clocks of both machines", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	if key, isRSA := leaf.PublicKey.(*rsa.PublicKey); isRSA && key.N.BitLen() < 2048 {
		return state.Errorf(state.ErrInvalid, "the certificate has an RSA key of %d bits, which clients refuse: use at least 2048, or ECDSA", key.N.BitLen())
	}
	if MemberOf(leaf) != "" {
		return state.Errorf(state.ErrInvalid, "this is the certificate of a member: it must not be shown to clients")
	}
	return nil
}

// serverPair reads a cluster certificate with its key.
func serverPair(certPEM, keyPEM []byte) (*Pair, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, state.Errorf(state.ErrInvalid, "the certificate is not in PEM form: it begins with -----BEGIN CERTIFICATE-----")
	}
	if key, _ := pem.Decode(keyPEM); key == nil || block.Type != "CERTIFICATE" || !strings.Contains(key.Type, "PRIVATE KEY") {
		return nil, state.Errorf(state.ErrInvalid, "want a certificate and its private key, both in PEM form, in this order")
	}
	pair, err := newPair(certPEM, keyPEM)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "the certificate and the key do not belong together: %w", err)
	}
	return pair, nil
}

// newPair checks that the two belong together.
func newPair(certPEM, keyPEM []byte) (*Pair, error) {
	both, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return &Pair{Leaf: both.Leaf, CertificatePEM: certPEM, keyPEM: keyPEM, tls: both}, nil
}

// loadOrMake returns the pair in the two files, or the one that make returns
// after installing it there.
func (s store) loadOrMake(certName, keyName string, makePair func() (*Pair, error)) (*Pair, error) {
	certPEM, certErr := os.ReadFile(s.path(certName))
	keyPEM, keyErr := os.ReadFile(s.path(keyName))
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		pair, err := makePair()
		if err != nil {
			return nil, err
		}
		return pair, s.install(certName, keyName, pair)
	case errors.Is(certErr, fs.ErrNotExist):
		return nil, s.halfMissing(certName, keyName)
	case errors.Is(keyErr, fs.ErrNotExist):
		return nil, s.halfMissing(keyName, certName)
	case certErr != nil:
		return nil, certErr
	case keyErr != nil:
		return nil, keyErr
	}
	if err := s.checkSecret(keyName); err != nil {
		return nil, err
	}
	pair, err := newPair(certPEM, keyPEM)
	if err != nil {
		return nil, state.Errorf(state.ErrConflict, "%s and %s do not make a pair (%w): restore both from a backup, or remove both to have new ones made",
			s.path(certName), s.path(keyName), err)
	}
	return pair, nil
}

func (s store) halfMissing(missing, present string) error {
	return state.Errorf(state.ErrConflict, "%s is missing beside %s: restore it from a backup, or remove both to have new ones made",
		s.path(missing), s.path(present))
}

// checkSecret refuses a key that others may read: it may have leaked already,
// and tightening its mode in silence would hide that.
func (s store) checkSecret(keyName string) error {
	info, err := os.Stat(s.path(keyName))
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return state.Errorf(state.ErrConflict, "%s is open to other users (mode %#o): run chmod 600 on it, and replace it if somebody may have read it", s.path(keyName), mode)
	}
	return nil
}

func randomSerial() ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	// Positive and of full length, as RFC 5280 wants it.
	serial[0] = serial[0]&0x7f | 0x40
	return serial, nil
}
