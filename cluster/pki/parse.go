package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"

	"muster/state"
)

// Fingerprint returns the lower-case hex SHA-256 of a certificate's DER form.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// ParseCertificate reads one certificate as clients send it: in PEM form, or
// as bare base64 of the DER form, which the LXD API uses in "certificate"
// fields. The error is of kind state.ErrInvalid and says what was found
// instead.
func ParseCertificate(text string) (*x509.Certificate, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, state.Errorf(state.ErrInvalid, "the certificate is empty: send it in PEM form")
	}
	der, err := certificateDER(text)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "the certificate is damaged: %w", err)
	}
	return cert, nil
}

// ParseClientCertificate reads the certificate of somebody who asks to be
// trusted. On top of ParseCertificate it refuses a certificate that is not
// valid at now. Certificates that call themselves an authority are welcome:
// openssl makes client certificates so by default, and trust here is only ever
// in the one key.
func ParseClientCertificate(text string, now time.Time) (*x509.Certificate, error) {
	cert, err := ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	switch {
	case now.After(cert.NotAfter):
		return nil, state.Errorf(state.ErrInvalid, "the certificate of %q expired on %s: make a new one", cert.Subject.CommonName, cert.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(cert.NotBefore):
		return nil, state.Errorf(state.ErrInvalid, "the certificate of %q is not valid before %s: check the clocks of both machines", cert.Subject.CommonName, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return cert, nil
}

// EncodeCertificate returns the certificate in PEM form.
func EncodeCertificate(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func certificateDER(text string) ([]byte, error) {
	if !strings.Contains(text, "-----BEGIN") {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, state.Errorf(state.ErrInvalid, "the certificate is neither PEM (it should begin with -----BEGIN CERTIFICATE-----) nor base64")
		}
		return der, nil
	}
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, state.Errorf(state.ErrInvalid, "the certificate's PEM form is damaged: its end or its base64 is wrong")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, state.Errorf(state.ErrInvalid, "this is a private key: keep it secret and send the certificate instead")
	case block.Type != "CERTIFICATE":
		return nil, state.Errorf(state.ErrInvalid, "this is a %q in PEM form: send a CERTIFICATE", block.Type)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, state.Errorf(state.ErrInvalid, "there is more than one PEM block: send one certificate, without its key or chain")
	}
	return block.Bytes, nil
}
