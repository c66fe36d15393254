package store

import "muster/state"

// AddCertificate puts a certificate into the trust store; ErrExists when its
// fingerprint is there.
type AddCertificate struct {
	Certificate state.Certificate
	Hint        Hint
}

// UpdateCertificate replaces what is recorded of a certificate. When PEM and
// NewFingerprint are given, the certificate itself is replaced too.
type UpdateCertificate struct {
	Fingerprint    string
	Type           string
	Name           string
	Restricted     bool
	Projects       []string
	PEM            string
	NewFingerprint string
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteCertificate takes a certificate, named by its full fingerprint, out of the
// trust store.
type DeleteCertificate struct {
	Fingerprint    string
	ExpectRevision state.Revision
	Hint           Hint
}
