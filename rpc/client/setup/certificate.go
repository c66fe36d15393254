package setup

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"muster/rpc/client"
)

// certificateDER takes a certificate as PEM or as base64, and returns it the way
// the API wants it written, base64 without frame, with its fingerprint.
func certificateDER(text string) (encoded, fingerprint string, err error) {
	var raw []byte
	if block, _ := pem.Decode([]byte(text)); block != nil {
		raw = block.Bytes
	} else if raw, err = base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err != nil {
		return "", "", errors.New("neither PEM nor base64")
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return "", "", fmt.Errorf("not a certificate: %w", err)
	}
	return base64.StdEncoding.EncodeToString(certificate.Raw), client.Fingerprint(certificate), nil
}
