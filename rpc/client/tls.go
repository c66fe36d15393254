package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
)

// Fingerprint is the lower-case hex SHA-256 of a certificate, the name by which
// people compare them.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// ServerCertificate connects to https://host:port and returns the certificate
// that the server shows, trusted or not: the caller must let a person compare
// its Fingerprint before pinning it.
func ServerCertificate(ctx context.Context, address string) (*x509.Certificate, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("server address %q: want https://host:port", address)
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: dialTimeout},
		// Nothing is sent over this connection and its certificate is only
		// shown to a person.
		Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", base.Host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%s shows no certificate", address)
	}
	return state.PeerCertificates[0], nil
}

// ErrServerCertificate means that the server shows another certificate than the
// pinned one: it was reinstalled, or somebody is in between.
var ErrServerCertificate = errors.New("the server's certificate has changed")

func tlsConfig(cfg Config) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if cfg.Certificate != nil {
		own := *cfg.Certificate
		// Given through the callback, it is shown even when the server names
		// authorities that did not sign it: ours is self-signed.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	if cfg.ServerCertificate == nil {
		return config
	}
	pinned := cfg.ServerCertificate
	// Names and authorities say nothing here: the certificate itself is what
	// was trusted, so it is compared byte by byte.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, pinned.Raw) {
			return ErrServerCertificate
		}
		return nil
	}
	return config
}
