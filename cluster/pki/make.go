package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"muster/state"
)

const (
	// backdate makes certificates valid for peers whose clocks are behind.
	backdate = 24 * time.Hour
	// validity of everything made here. Clients pin the cluster certificate
	// and members are revoked by name, so expiry would only cause outages.
	validity = 20 * 365 * 24 * time.Hour

	organization = "muster"
	// memberUnit marks the subject of a member certificate, so that no other
	// certificate of the authority can pass for one.
	memberUnit = "member"
)

// makeAuthority makes the key that admits members.
func makeAuthority(now time.Time) (*Pair, error) {
	return selfSigned(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: "muster cluster authority"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

// makeServer makes the certificate that clients pin.
func makeServer(hosts []string, now time.Time) (*Pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: "muster cluster"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" && !slices.Contains(template.DNSNames, host) {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return selfSigned(template)
}

// makeMember makes a member's key and has the authority sign it.
func makeMember(authority *Pair, id string, now time.Time) (*Pair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	certPEM, err := signMember(authority, &key.PublicKey, id, now)
	if err != nil {
		return nil, err
	}
	return newPair(certPEM, keyPEM)
}

// SignMember signs the key in a PEM certificate request for the member with
// the given ID, valid from now. What else the request asks for is ignored.
// Errors are of kind state.ErrInvalid.
func (i *Identity) SignMember(requestPEM []byte, id string, now time.Time) (certPEM []byte, err error) {
	block, _ := pem.Decode(requestPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, state.Errorf(state.ErrInvalid, "a member joins with a CERTIFICATE REQUEST in PEM form")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "the certificate request is damaged: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, state.Errorf(state.ErrInvalid, "the certificate request is not signed by its own key: %w", err)
	}
	if key, isRSA := request.PublicKey.(*rsa.PublicKey); isRSA && key.N.BitLen() < 2048 {
		return nil, state.Errorf(state.ErrInvalid, "the certificate request has an RSA key of %d bits: use at least 2048, or ECDSA", key.N.BitLen())
	}
	return signMember(i.authority, request.PublicKey, id, now)
}

// MakeRequest makes a key and a request for a certificate on it: what a joining
// member sends to be signed. Both are in PEM form; keep the key secret.
func MakeRequest() (requestPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Organization: []string{organization}, OrganizationalUnit: []string{memberUnit}},
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), keyPEM, nil
}

// MemberOf returns the member ID that a certificate names, or "" when the
// certificate is not made for a member. It does not say who signed it.
func MemberOf(cert *x509.Certificate) string {
	if !slices.Contains(cert.Subject.OrganizationalUnit, memberUnit) || !slices.Contains(cert.Subject.Organization, organization) {
		return ""
	}
	return cert.Subject.CommonName
}

func signMember(authority *Pair, public any, id string, now time.Time) ([]byte, error) {
	// A common name holds 64 characters (RFC 5280, ub-common-name).
	if id == "" || len(id) > 64 {
		return nil, state.Errorf(state.ErrInvalid, "a member's ID has 1 to 64 characters; %q has %d", id, len(id))
	}
	serial, err := randomSerial()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject: pkix.Name{
			Organization: []string{organization}, OrganizationalUnit: []string{memberUnit}, CommonName: id,
		},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              []string{MemberServerName},
	}, authority.Leaf, public, authority.tls.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of member %s: %w", id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func selfSigned(template *x509.Certificate) (*Pair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := randomSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of the %s: %w", template.Subject.CommonName, err)
	}
	return newPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM)
}

// newKey makes an ECDSA key on P-384, the curve that LXD's own certificates use
// and every stock client accepts.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
