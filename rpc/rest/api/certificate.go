package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// CertificatePut is what a client may replace of a trusted certificate.
type CertificatePut struct {
	Name string `json:"name"`
	// Type is "client" or "metrics".
	Type string `json:"type"`
	// Restricted limits the client to Projects.
	Restricted bool     `json:"restricted"`
	Projects   []string `json:"projects"`
	// Certificate is PEM when read, base64 DER or PEM when written.
	Certificate string `json:"certificate"`
}

// Certificate is an entry of the trust store.
type Certificate struct {
	CertificatePut
	// Fingerprint is the hex SHA-256 of the DER form.
	Fingerprint string `json:"fingerprint"`
}

// CertificatesPost adds a certificate, or asks for a token that lets a client
// add its own.
type CertificatesPost struct {
	CertificatePut
	// Password is the trust password or a token's secret; only an untrusted
	// client needs it.
	Password string `json:"password"`
	// Token asks for a token operation instead of adding a certificate.
	Token bool `json:"token"`
}

// CertificateAddToken lets a client trust the server and the server the client
// in one step: the whole is given to the user as base64 JSON.
type CertificateAddToken struct {
	ClientName string `json:"client_name"`
	// Fingerprint is the server certificate's.
	Fingerprint string `json:"fingerprint"`
	// Addresses are host:port pairs to try.
	Addresses []string  `json:"addresses"`
	Secret    string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
}

// String encodes the token the way it is handed from person to person.
func (t CertificateAddToken) String() string { return encodeToken(t) }

// ParseCertificateAddToken decodes what String made. The error says what is
// missing.
func ParseCertificateAddToken(text string) (CertificateAddToken, error) {
	var t CertificateAddToken
	if err := decodeToken(text, &t); err != nil {
		return t, err
	}
	if t.ClientName == "" || t.Secret == "" || t.Fingerprint == "" || len(t.Addresses) == 0 {
		return t, fmt.Errorf("not a trust token: client_name, fingerprint, addresses and secret are needed")
	}
	return t, nil
}

func encodeToken(token any) string {
	// Maps, strings and times always encode.
	text, err := json.Marshal(token)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(text)
}

func decodeToken(text string, token any) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("not a token: %w", err)
	}
	if err := json.Unmarshal(raw, token); err != nil {
		return fmt.Errorf("not a token: %w", err)
	}
	return nil
}
