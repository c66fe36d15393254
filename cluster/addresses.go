package cluster

import (
	"context"
	"time"

	"muster/node"
)

// addressesEvery is how often a member looks for addresses of instances that are gone.
const addressesEvery = 5 * time.Second

// tendAddresses releases, until ctx ends, what this member's networks keep for instances
// that are not here: what could not be released on their way out.
func (c *Cluster) tendAddresses(ctx context.Context) error {
	return every(ctx, addressesEvery, func() {
		owners, err := c.node.AddressOwners()
		if err != nil {
			c.log.Error("list the addresses of instances", "error", err)
		}
		for _, owner := range owners {
			if err := c.tendAddress(ctx, owner); err != nil && ctx.Err() == nil {
				c.log.Warn("release the addresses of an instance that is not here", "instance", owner, "error", err)
			}
		}
	})
}

func (c *Cluster) tendAddress(ctx context.Context, owner string) error {
	here := func() bool {
		inst, err := c.store.View().Instance(node.SplitHostName(owner))
		return err == nil && (inst.Location == c.Self() || inst.Busy == kindMove)
	}
	if here() {
		return nil
	}
	// One that is being renamed has addresses under a name that is not recorded yet.
	release, err := c.locks.acquire(ctx, "instance "+owner, "release addresses")
	if err != nil {
		return err
	}
	defer release()
	if here() {
		return nil
	}
	return c.node.ReleaseAddresses(ctx, owner)
}
