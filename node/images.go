package node

import (
	"context"
	"errors"

	"muster/node/image"
	"muster/node/network"
	"muster/node/storage"
)

// Networks are the managed networks of this machine.
func (n *Node) Networks() *network.Networks { return n.cfg.Networks }

// Images is the store of image files on this machine.
func (n *Node) Images() *image.Store { return n.cfg.Images }

// DeleteImage removes an image's files and what is unpacked of it in the pools.
// Instances made from it keep what they share with it. It can be repeated.
func (n *Node) DeleteImage(ctx context.Context, fingerprint string) error {
	n.mu.Lock()
	pools := make([]*storage.Pool, 0, len(n.pools))
	for _, pool := range n.pools {
		pools = append(pools, pool)
	}
	n.mu.Unlock()
	var failed []error
	for _, pool := range pools {
		failed = append(failed, pool.DeleteImage(ctx, fingerprint))
	}
	return errors.Join(append(failed, n.cfg.Images.Delete(ctx, fingerprint))...)
}
