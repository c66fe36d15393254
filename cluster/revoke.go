package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// Entitled reports whether the client that began an operation of a project may still have
// what the operation lets others in to: the websockets of a command, an image, the trust
// store. It is false once the client's certificate is gone, or no longer reaches the
// project; operations of the whole server have none and need an unrestricted client.
func Entitled(view *store.View, requestor *state.Requestor, project string) bool {
	fingerprint := requestor.Fingerprint()
	if fingerprint == "" {
		return true // the local socket, or a member by itself
	}
	certificate, err := view.Certificate(fingerprint)
	switch {
	case err != nil || certificate.Type != "client":
		return false
	case certificate.Restricted:
		return project != "" && slices.Contains(certificate.Projects, project)
	}
	return true
}

// tendRevoked ends what clients that are not trusted any more have left on this member:
// their connections, and what they began that lets others in. Every member does so as soon
// as it knows of it, since a client may be connected to any of them.
func (c *Cluster) tendRevoked(ctx context.Context) error {
	c.endRevoked(ctx, c.begunHere)
	return c.follow(ctx, func(change store.Change) {
		if change.Kind != store.KindCertificate {
			return
		}
		after, _ := change.After.(*state.Certificate)
		before, _ := change.Before.(*state.Certificate)
		switch {
		case before == nil: // a new client has nothing to lose
		case after == nil || after.Restricted || after.Type != "client":
			c.cut(func(fingerprint string) bool { return fingerprint == before.Fingerprint })
			c.endRevoked(ctx, c.begunHere)
		}
	}, func(state.Revision) {
		// Certificates may have gone with the changes that were skipped.
		c.cut(func(fingerprint string) bool {
			certificate, err := c.store.View().Certificate(fingerprint)
			return err != nil || certificate.Restricted
		})
		c.endRevoked(ctx, c.begunHere)
	})
}

// revoke does for a client that just lost its trust, or part of it, what tendRevoked does,
// and for all members as far as the logs reach: when its removal is answered, it is out.
func (c *Cluster) revoke(ctx context.Context, fingerprint string) {
	c.cut(func(other string) bool { return other == fingerprint })
	c.endRevoked(ctx, func(op coord.Operation) bool { return op.Requestor.Fingerprint() == fingerprint })
}

func (c *Cluster) cut(whose func(fingerprint string) bool) {
	if c.cfg.Cut != nil {
		c.cfg.Cut(whose)
	}
}

func (c *Cluster) begunHere(op coord.Operation) bool { return op.Member == c.cfg.MemberID }

// endRevoked ends the operations among those that match whose clients are not entitled to
// them any more. What can't be recorded now is refused all the same whenever somebody
// shows such a secret (Claim, ConsumeToken, UseImageSecret).
func (c *Cluster) endRevoked(ctx context.Context, match func(coord.Operation) bool) {
	view := c.store.View()
	for _, op := range c.ops.registered() {
		if op.Status.Final() || op.Class == coord.ClassTask || !match(op) || Entitled(view, op.Requestor, op.Project) {
			continue
		}
		if err := c.endOperation(ctx, view, op); err != nil && ctx.Err() == nil {
			c.log.Warn("end what a client left that is not trusted any more", "operation", op.ID, "error", err)
		}
	}
}

// revokeTimeout is how long recording the end of one operation may take.
const revokeTimeout = 5 * time.Second

func (c *Cluster) endOperation(ctx context.Context, view *store.View, op coord.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if err := c.ops.revoke(ctx, op); err != nil && !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	for _, token := range view.Tokens() {
		if token.Operation != op.ID {
			continue
		}
		if err := c.apply(ctx, store.DeleteToken{ID: token.ID}); err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
	}
	return nil
}
