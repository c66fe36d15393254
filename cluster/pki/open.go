package pki

import (
	"crypto/x509"
	"time"

	"muster/state"
)

// Open loads the identity in dir, making what is not there yet. The directory
// must exist. A crash at any moment leaves either no pair or a whole one.
// Errors name the file and what to do; damaged files are never replaced.
func Open(dir string, opts Options) (*Identity, error) {
	return nil, state.Errorf(state.ErrUnavailable, "pki of %s: being built", dir)
}

// ReplaceServer puts a new cluster certificate in place of the present one, on
// disk and for connections made from now on. The pair is checked first; errors
// are of kind state.ErrInvalid.
func (i *Identity) ReplaceServer(certPEM, keyPEM []byte) error {
	return state.Errorf(state.ErrUnavailable, "being built")
}

// SignMember signs the key in a PEM certificate request for the member with
// the given ID, valid from now. What else the request asks for is ignored.
func (i *Identity) SignMember(requestPEM []byte, id string, now time.Time) (certPEM []byte, err error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// MemberOf returns the member ID that a certificate names, or "" when the
// certificate is not a member's.
func MemberOf(cert *x509.Certificate) string { return "" }
