package cluster

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// CreateCertificate trusts a certificate.
func (c *Cluster) CreateCertificate(ctx context.Context, certificate state.Certificate) error {
	return c.apply(ctx, store.AddCertificate{Certificate: certificate})
}

// UpdateCertificate replaces what is recorded of a certificate, and cuts its
// connections: what it may do has changed.
func (c *Cluster) UpdateCertificate(ctx context.Context, certificate state.Certificate, expect state.Revision) error {
	err := c.apply(ctx, store.UpdateCertificate{
		Fingerprint: certificate.Fingerprint, Type: certificate.Type, Name: certificate.Name,
		Restricted: certificate.Restricted, Projects: certificate.Projects, ExpectRevision: expect,
	})
	if err == nil && (certificate.Restricted || certificate.Type != "client") {
		c.revoke(ctx, certificate.Fingerprint)
	}
	return err
}

// DeleteCertificate trusts a certificate no longer: its holder is out at once,
// open streams included, and with it whoever has a secret that it made.
func (c *Cluster) DeleteCertificate(ctx context.Context, fingerprint string, expect state.Revision) error {
	err := c.apply(ctx, store.DeleteCertificate{Fingerprint: fingerprint, ExpectRevision: expect})
	if err == nil {
		c.revoke(ctx, fingerprint)
	}
	return err
}

// CreateToken records a token and shows it in an operation with the given
// metadata. Cancelling the operation withdraws the token.
func (c *Cluster) CreateToken(ctx context.Context, token state.Token, metadata map[string]any) (OperationInfo, error) {
	token.ID = uuid.NewString()
	info, err := c.ops.Start(ctx, OperationSpec{
		Class: coord.ClassToken, Description: "Executing operation", MayCancel: true, Metadata: metadata,
		Input: tokenInput{Token: token.ID},
	}, nil)
	if err != nil {
		return info, err
	}
	token.Operation = info.ID
	if err := c.apply(ctx, store.AddToken{Token: token}); err != nil {
		if cancel := c.ops.Cancel(context.WithoutCancel(ctx), info.ID); cancel != nil {
			c.log.Warn("cancel the operation of a token", "operation", info.ID, "error", cancel)
		}
		return OperationInfo{}, err
	}
	return info, nil
}

// tokenInput links a token operation with its token.
type tokenInput struct {
	Token string `json:"token"`
}

// UseToken trusts the certificate of somebody who showed a token, and uses the
// token up. Of several who show it exactly one gets in. A token whose operation
// was cancelled is withdrawn.
func (c *Cluster) UseToken(ctx context.Context, token state.Token, certificate state.Certificate) error {
	maker, err := c.makerOf(ctx, &token)
	if err != nil {
		return err
	}
	err = c.apply(ctx, store.ConsumeToken{ID: token.ID, SecretHash: token.SecretHash, Now: c.now(), Maker: maker, Certificate: &certificate})
	if err != nil {
		return err
	}
	if err := c.ops.Finish(ctx, token.Operation); err != nil {
		c.log.Warn("finish the operation of a token", "operation", token.Operation, "error", err)
	}
	return nil
}

// makerOf is the fingerprint of the client certificate that made a token, or empty for the
// local socket. A token whose operation has ended was withdrawn: it is forgotten, and
// refused with ErrForbidden.
func (c *Cluster) makerOf(ctx context.Context, token *state.Token) (string, error) {
	if token.ID == "" {
		return "", nil // see joinToken: nothing is used up
	}
	op, err := c.ops.Get(token.Operation)
	if errors.Is(err, state.ErrNotFound) && c.Clustered() {
		// Another member may have made it just now: then the token has come by the one
		// log, and its operation is still to come by the other.
		if err := c.cfg.Coord.Barrier(ctx); err != nil {
			return "", err
		}
		op, err = c.ops.Get(token.Operation)
	}
	if err == nil && !op.Final() {
		return op.Requestor.Fingerprint(), nil
	}
	if err := c.apply(ctx, store.DeleteToken{ID: token.ID}); err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	return "", state.Errorf(state.ErrForbidden, "this token was withdrawn: ask for a new one")
}
