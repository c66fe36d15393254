package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"time"
)

// identityYears is how long a new client certificate is good for; servers pin
// it, so its end only tidies up.
const identityYears = 10

// Identity returns the certificate that servers know us by. The first call
// makes it.
func (c *Config) Identity() (*tls.Certificate, error) {
	certFile, keyFile := filepath.Join(c.dir, "client.crt"), filepath.Join(c.dir, "client.key")
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		return &pair, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("our own certificate: %w", err)
	}
	if _, err := os.Stat(certFile); err == nil {
		// A new pair would be another identity, unknown to every server.
		return nil, fmt.Errorf("%s is there but its key %s is not", certFile, keyFile)
	}
	certPEM, keyPEM, err := newIdentity(time.Now())
	if err != nil {
		return nil, fmt.Errorf("make our own certificate: %w", err)
	}
	if err := os.MkdirAll(c.dir, 0o750); err != nil {
		return nil, err
	}
	// The key goes first: a certificate without one would look like damage.
	if err := replace(keyFile, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := replace(certFile, certPEM, 0o644); err != nil {
		return nil, err
	}
	pair, err = tls.X509KeyPair(certPEM, keyPEM)
	return &pair, err
}

func newIdentity(now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: whoAmI(), Organization: []string{"muster"}},
		// An hour back, for a server whose clock is behind.
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(identityYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// whoAmI names the person for the server's list of clients.
func whoAmI() string {
	name := "unknown"
	if me, err := user.Current(); err == nil {
		name = me.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
