package cluster

import (
	"context"

	"muster/state"
	"muster/state/store"
)

// A witness votes and hosts nothing: with it two hosts are a cluster that outlives the
// loss of one. It answers the API like others, and passes on what only a member that
// hosts can do.

// SetWitness makes this member a witness, or a member like others again. See
// store.SetWitness for what speaks against it. It is called before Reconcile, which then
// removes what this member has no more.
func (c *Cluster) SetWitness(ctx context.Context, witness bool) error {
	self, err := c.store.View().MemberByID(c.cfg.MemberID)
	if err != nil || store.Witness(self) == witness {
		return err
	}
	if err := c.apply(ctx, store.SetWitness{Name: self.Name, Witness: witness}); err != nil {
		return err
	}
	c.log.Info("this member's part in the cluster changes", "witness", witness)
	return nil
}

// Witness reports whether this member is a witness.
func (c *Cluster) Witness() bool {
	self, err := c.store.View().MemberByID(c.cfg.MemberID)
	return err == nil && store.Witness(self)
}

// Host is the name of a member that hosts and is online: this one, if it does.
func (c *Cluster) Host() (string, error) {
	if !c.Witness() {
		return c.Self(), nil
	}
	for _, m := range c.store.View().Members() {
		if !store.Witness(m) && c.Online(m.ID) {
			return m.Name, nil
		}
	}
	return "", state.Errorf(state.ErrUnavailable, "this member is a witness, and no member that hosts instances is online")
}

// mustHost refuses what a witness has none of.
func (c *Cluster) mustHost() error {
	if c.Witness() {
		return errWitness(c.Self())
	}
	return nil
}

func errWitness(name string) error {
	return state.Errorf(state.ErrInvalid, "member %q is a witness: it votes, and has no instances, images, storage pools and networks", name)
}

func errNobodyHosts() error {
	return state.Errorf(state.ErrConflict, "this server is a witness, and there is no member that hosts: let others join first, or start it without --witness")
}
