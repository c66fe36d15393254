package cluster

import (
	"context"
	"encoding/pem"
	"strings"

	"muster/cluster/pki"
	"muster/state"
	"muster/state/store"
)

// certificateKey is the hidden setting that hands the cluster's certificate and its key
// to the members, in PEM form, once they have been replaced. It is in the state plane so
// that a member that is down gets it when it is back.
const certificateKey = state.HiddenPrefix + "cluster_certificate"

// UpdateClusterCertificate replaces the certificate that all members show to clients.
// The certificate may be followed by those that lead to its authority. It is served to
// new connections by this member when the call returns, and by the others as soon as
// they hear of it.
func (c *Cluster) UpdateClusterCertificate(ctx context.Context, certificate, key string) error {
	if !c.Clustered() {
		return errAlone()
	}
	if err := pki.CheckServer([]byte(certificate), []byte(key), c.now()); err != nil {
		return err
	}
	err := c.apply(ctx, store.SetSettings{
		Cluster: map[string]string{certificateKey: strings.TrimSpace(certificate) + "\n" + strings.TrimSpace(key) + "\n"},
		Hint:    store.Hint{Action: "cluster-certificate-updated"},
	})
	if err != nil {
		return err
	}
	return c.takeCertificate(c.store.View())
}

// tendCertificate takes the cluster's certificate over whenever it is replaced. It
// returns when ctx ends.
func (c *Cluster) tendCertificate(ctx context.Context) error {
	for {
		view := c.store.View()
		if err := c.takeCertificate(view); err != nil {
			c.log.Error("take the cluster's new certificate", "error", err)
		}
		if err := c.store.WaitRevision(ctx, view.Revision()+1); ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is how this ends
		} else if err != nil {
			return err
		}
	}
}

// takeCertificate serves the certificate that the state plane has, if it has one and
// another is served now.
func (c *Cluster) takeCertificate(view *store.View) error {
	pair := view.Setting("", certificateKey)
	if pair == "" || c.cfg.Identity == nil {
		return nil
	}
	c.certificateMu.Lock()
	defer c.certificateMu.Unlock()
	if pair == c.certificate {
		return nil
	}
	var certificate, key []byte
	for block, rest := pem.Decode([]byte(pair)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certificate = append(certificate, pem.EncodeToMemory(block)...)
		} else {
			key = append(key, pem.EncodeToMemory(block)...)
		}
	}
	if string(c.cfg.Identity.Server().CertificatePEM) != string(certificate) {
		if err := c.cfg.Identity.ReplaceServer(certificate, key); err != nil {
			return err
		}
		c.log.Info("the cluster's certificate was replaced", "fingerprint", c.cfg.Identity.Server().Fingerprint())
	}
	c.certificate = pair
	return nil
}
