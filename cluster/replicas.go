package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/url"
	"slices"
	"strconv"
	"time"

	"muster/node/image"
	"muster/state"
	"muster/state/store"
)

// defaultReplicas is on how many members an image is unless
// cluster.images_minimal_replica says otherwise (LXD: "Server configuration").
const defaultReplicas = 3

// replicasEvery is how often a member looks for images that it should have.
const replicasEvery = 10 * time.Second

// fetchTries is how often an image's stream is taken up again where it was cut.
const fetchTries = 5

// ImageHolder is a member that has the files of an image: this one, if it does.
func (c *Cluster) ImageHolder(ctx context.Context, project, fingerprint string) (string, error) {
	known, err := c.Image(ctx, project, fingerprint)
	if err != nil {
		return "", err
	}
	if slices.Contains(known.Members, c.Self()) {
		return c.Self(), nil
	}
	view := c.store.View()
	for _, member := range known.Members {
		if c.onlineByName(view, member) {
			return member, nil
		}
	}
	return "", state.Errorf(state.ErrUnavailable, "image %.12s is on no member that is online (%q)", known.Fingerprint, known.Members)
}

// haveImage sees to it that this member has the files of an image: it streams them from
// another member, takes up where a stream was cut, and keeps only what hashes to the
// fingerprint.
func (c *Cluster) haveImage(ctx context.Context, project, fingerprint string, progress func(received, size int64)) error {
	wanted, err := c.Image(ctx, project, fingerprint)
	if err != nil {
		return err
	}
	if slices.Contains(wanted.Members, c.Self()) {
		return nil
	}
	release, err := c.locks.acquire(ctx, fmt.Sprintf("image %.12s", wanted.Fingerprint), "download")
	if err != nil {
		return err
	}
	defer release()
	view := c.store.View()
	if wanted, err = view.Image(project, fingerprint); err != nil {
		return err
	}
	if slices.Contains(wanted.Members, c.Self()) {
		return nil
	}
	defer c.imageArrives(ctx, wanted.Fingerprint)()
	if err := c.fetchImage(ctx, view, wanted, progress); err != nil {
		return fmt.Errorf("fetch image %.12s from another member: %w", wanted.Fingerprint, err)
	}
	// Every project that knows the image has it here now.
	for _, known := range c.store.View().Images("") {
		if known.Fingerprint != wanted.Fingerprint {
			continue
		}
		if err := c.finish(ctx, store.AddImageMember{Project: known.Project, Fingerprint: known.Fingerprint, Member: c.Self()}); err != nil {
			return err
		}
	}
	// It may have been deleted while it came.
	c.dropFiles(ctx, wanted.Fingerprint)
	return nil
}

func (c *Cluster) fetchImage(ctx context.Context, view *store.View, wanted *state.Image, progress func(received, size int64)) error {
	if c.node.Images().Has(wanted.Fingerprint) && c.node.Images().Verify(ctx, wanted.Fingerprint) == nil {
		return nil // from before, in another project
	}
	var holders []string
	for _, member := range wanted.Members {
		if c.onlineByName(view, member) {
			holders = append(holders, member)
		}
	}
	if len(holders) == 0 {
		return state.Errorf(state.ErrUnavailable, "none of the members that have it is online (%q)", wanted.Members)
	}
	roles := []image.Role{image.RoleUnified}
	if wanted.Split {
		roles = []image.Role{image.RoleMetadata, image.RoleRootFS}
	}
	var open *resumed
	defer func() {
		if open != nil {
			open.close()
		}
	}()
	_, err := c.node.Images().Import(ctx, image.ImportSpec{
		Fingerprint: wanted.Fingerprint,
		Progress: func(received int64) {
			if progress != nil {
				progress(received, wanted.Size)
			}
		},
		Next: func() (image.Part, error) {
			if open != nil {
				open.close()
			}
			if len(roles) == 0 {
				return image.Part{}, io.EOF
			}
			role := roles[0]
			roles = roles[1:]
			open = &resumed{ctx: ctx, remote: c.cfg.Remote, holders: holders, path: "/internal/images/" + wanted.Fingerprint + "/" + string(role)}
			return image.Part{Role: role, Body: open}, nil
		},
	})
	return err
}

// resumed reads a file of other members, and goes on with the next of them when one
// breaks off.
type resumed struct {
	ctx     context.Context //nolint:containedctx // of the one read that it is for
	remote  Remote
	holders []string
	path    string

	body   io.ReadCloser
	offset int64
	total  int64
	tries  int
}

// Read implements io.Reader.
func (r *resumed) Read(buffer []byte) (int, error) {
	for {
		if r.body == nil {
			if err := r.open(); err != nil {
				return 0, err
			}
		}
		count, err := r.body.Read(buffer)
		r.offset += int64(count)
		switch {
		case err == nil, r.offset == r.total && errors.Is(err, io.EOF):
			return count, err
		case count > 0:
			r.close()
			return count, nil
		}
		r.close()
		if r.tries++; r.tries >= fetchTries || r.ctx.Err() != nil {
			return 0, fmt.Errorf("the stream broke off after %d of %d bytes: %w", r.offset, r.total, errors.Join(err, r.ctx.Err()))
		}
	}
}

func (r *resumed) open() error {
	var failed []error
	for i := range r.holders {
		holder := r.holders[(r.tries+i)%len(r.holders)]
		body, total, err := r.remote.Open(r.ctx, holder, r.path, r.offset)
		if err == nil {
			r.body, r.total = body, total
			return nil
		}
		failed = append(failed, fmt.Errorf("member %q: %w", holder, err))
	}
	return errors.Join(failed...)
}

func (r *resumed) close() {
	if r.body != nil {
		_ = r.body.Close() // what was read is checked by its hash
		r.body = nil
	}
}

// tendImages removes the files and secrets of images that were deleted through other
// members, and fetches those that too few members have, until ctx ends.
func (c *Cluster) tendImages(ctx context.Context) error {
	held := map[string]bool{}
	ticker := time.NewTicker(replicasEvery)
	defer ticker.Stop()
	for {
		view := c.store.View()
		now := map[string]bool{}
		for _, known := range view.Images("") {
			if slices.Contains(known.Members, c.Self()) {
				now[known.Fingerprint] = true
			}
		}
		for fingerprint := range held {
			if !now[fingerprint] {
				c.dropFiles(ctx, fingerprint)
			}
		}
		held = now
		c.endImageSecrets(ctx)
		if err := c.replicate(ctx, view); err != nil && ctx.Err() == nil {
			c.log.Warn("fetch an image", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// dropDeletedImages removes what this member has of images that are deleted, whoever
// deletes them and however short they were here. tendImages finds what it missed.
func (c *Cluster) dropDeletedImages(ctx context.Context) error {
	return c.follow(ctx, func(change store.Change) {
		if known, ok := change.Before.(*state.Image); ok && change.After == nil {
			c.dropFiles(ctx, known.Fingerprint)
		}
	}, func(state.Revision) {})
}

// replicate fetches the images that this member is to have.
func (c *Cluster) replicate(ctx context.Context, view *store.View) error {
	if !c.Clustered() {
		return nil
	}
	online, wanted := c.replicas(view)
	var failed []error
	for _, known := range view.Images("") {
		if ctx.Err() != nil {
			break
		}
		if chosen(known, online, wanted, c.Self()) {
			failed = append(failed, c.haveImage(ctx, known.Project, known.Fingerprint, nil))
		}
	}
	return errors.Join(failed...)
}

// replicas are the members that can have images, and on how many of them one is to be.
func (c *Cluster) replicas(view *store.View) (online []string, wanted int) {
	wanted = defaultReplicas
	if value := view.Setting("", "cluster.images_minimal_replica"); value != "" {
		wanted, _ = strconv.Atoi(value) // checked when it was set
	}
	for _, m := range view.Members() {
		if c.onlineByName(view, m.Name) && !store.Witness(m) {
			online = append(online, m.Name)
		}
	}
	if wanted < 0 || wanted > len(online) {
		wanted = len(online)
	}
	return online, wanted
}

// spreadTime bounds the wait for the replicas of a new image.
const spreadTime = 10 * time.Minute

// spreadImage has the members that are to have a new image fetch it, and returns when each
// has it, or can't: what one can't now it tries again by itself (tendImages).
func (c *Cluster) spreadImage(ctx context.Context, project, fingerprint string) {
	if c.cfg.Remote == nil || !c.Clustered() {
		return
	}
	view := c.store.View()
	added, err := view.Image(project, fingerprint)
	if err != nil {
		return // deleted already
	}
	online, wanted := c.replicas(view)
	targets := slices.DeleteFunc(slices.Clone(online), func(member string) bool {
		return member == c.Self() || !chosen(added, online, wanted, member)
	})
	ctx, cancel := context.WithTimeout(ctx, spreadTime)
	defer cancel()
	err = forAll(ctx, targets, func(ctx context.Context, member string) error {
		return c.cfg.Remote.Request(ctx, member, "POST", "/internal/images/"+added.Fingerprint+"?project="+url.QueryEscape(project), nil, nil)
	})
	if err != nil {
		c.log.Warn("a new image is not on all members yet that are to have it", "fingerprint", added.Fingerprint, "error", err)
	}
}

// HaveImage answers another member that wants this one to have an image.
func (c *Cluster) HaveImage(ctx context.Context, project, fingerprint string) error {
	return c.haveImage(ctx, project, fingerprint, nil)
}

// chosen reports whether self is among the members that come to have the image, so that
// as many as wanted do. Every member finds the same without asking: whoever hashes
// lowest with the image is first (rendezvous hashing, Thaler and Ravishankar 1998).
func chosen(known *state.Image, online []string, wanted int, self string) bool {
	var candidates []string
	for _, member := range online {
		if slices.Contains(known.Members, member) {
			wanted--
		} else {
			candidates = append(candidates, member)
		}
	}
	if wanted <= 0 {
		return false
	}
	rank := func(member string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(member + "\x00" + known.Fingerprint))
		return h.Sum64()
	}
	slices.SortFunc(candidates, func(a, b string) int {
		if rank(a) < rank(b) {
			return -1
		}
		return 1
	})
	return slices.Contains(candidates[:min(wanted, len(candidates))], self)
}
