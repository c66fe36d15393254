package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/node"
	"muster/node/image"
	"muster/state"
	"muster/state/store"
)

// Image returns the image with that fingerprint, or a unique beginning of it.
func (c *Cluster) Image(_ context.Context, project, fingerprint string) (*state.Image, error) {
	return c.store.View().Image(project, fingerprint)
}

// ImageSpec says how a new image is recorded.
type ImageSpec struct {
	Project  string
	Filename string
	Public   bool
	// Properties are laid over those of the file.
	Properties map[string]string
	Profiles   []string
	Aliases    []state.ImageAlias
	// ExpiresAt, when not zero, replaces the file's.
	ExpiresAt time.Time
}

func imageResources(project, fingerprint string) map[string][]string {
	return map[string][]string{"images": {resource(project, "images", fingerprint)}}
}

func (s ImageSpec) check() error {
	for _, alias := range s.Aliases {
		if err := state.ValidateAliasName(alias.Name); err != nil {
			return err
		}
	}
	return nil
}

// ImportImage takes in what upload yields while the request lasts, and records it
// in the background. Nothing is kept of an upload that fails.
func (c *Cluster) ImportImage(ctx context.Context, spec ImageSpec, upload image.ImportSpec) (OperationInfo, error) {
	if err := spec.check(); err != nil {
		return OperationInfo{}, err
	}
	for _, profile := range spec.Profiles {
		if _, err := c.store.View().Profile(spec.Project, profile); err != nil {
			return OperationInfo{}, err
		}
	}
	if upload.Fingerprint != "" {
		if _, err := c.store.View().Image(spec.Project, upload.Fingerprint); err == nil {
			return OperationInfo{}, state.Errorf(state.ErrExists, "an image with the fingerprint %.12s already exists", upload.Fingerprint)
		}
	}
	arrived := c.imageArrives(ctx, "")
	info, err := c.node.Images().Import(ctx, upload)
	if err != nil {
		arrived()
		return OperationInfo{}, err
	}
	if _, err := c.store.View().Image(spec.Project, info.Fingerprint); err == nil {
		arrived()
		return OperationInfo{}, state.Errorf(state.ErrExists, "an image with the fingerprint %.12s already exists", info.Fingerprint)
	}
	started, err := c.ops.Start(ctx, OperationSpec{
		Description: "Downloading image", Project: spec.Project, Resources: imageResources(spec.Project, info.Fingerprint),
	}, func(ctx context.Context, op *Operation) error {
		err := c.recordImage(ctx, op, spec, info)
		arrived()
		if err == nil {
			c.spreadImage(ctx, spec.Project, info.Fingerprint)
		}
		return err
	})
	if err != nil {
		c.dropFiles(ctx, info.Fingerprint)
		arrived()
	}
	return started, err
}

// recordImage makes an image whose files are here known.
func (c *Cluster) recordImage(ctx context.Context, op *Operation, spec ImageSpec, info image.Info) error {
	properties := maps.Clone(info.Properties)
	if properties == nil {
		properties = map[string]string{}
	}
	maps.Copy(properties, spec.Properties)
	added := state.Image{
		Project: spec.Project, Fingerprint: info.Fingerprint, Filename: spec.Filename, Size: info.Size,
		Architecture: info.Architecture, Type: info.Type, Public: spec.Public, Properties: properties,
		Profiles: spec.Profiles, Split: info.Split, CreatedAt: info.CreatedAt, ExpiresAt: info.ExpiresAt,
		UploadedAt: c.now(), Members: []string{c.Self()},
	}
	if !spec.ExpiresAt.IsZero() {
		added.ExpiresAt = spec.ExpiresAt
	}
	if len(added.Profiles) == 0 {
		added.Profiles = []string{"default"}
	}
	aliases := make([]state.ImageAlias, 0, len(spec.Aliases))
	for _, alias := range spec.Aliases {
		alias.Project, alias.Target = spec.Project, info.Fingerprint
		aliases = append(aliases, alias)
	}
	if err := c.finish(ctx, store.AddImage{Image: added, Aliases: aliases}); err != nil {
		c.dropFiles(ctx, info.Fingerprint)
		return err
	}
	op.UpdateMetadata(map[string]any{"fingerprint": info.Fingerprint, "size": strconv.FormatInt(info.Size, 10)})
	return nil
}

// imageArrives keeps the files of an image, or of any when the fingerprint is "", until
// arrived is called.
func (c *Cluster) imageArrives(ctx context.Context, fingerprint string) (arrived func()) {
	return c.arrivals.begin(fingerprint, func(doomed string) { c.removeFiles(ctx, doomed) })
}

// dropFiles removes the files of an image that no project has, as soon as it can't be on
// its way here.
func (c *Cluster) dropFiles(ctx context.Context, fingerprint string) {
	c.arrivals.unless(fingerprint, func(doomed string) { c.removeFiles(ctx, doomed) })
}

func (c *Cluster) removeFiles(ctx context.Context, fingerprint string) {
	for _, known := range c.store.View().Images("") {
		if known.Fingerprint == fingerprint {
			return
		}
	}
	if err := c.node.DeleteImage(context.WithoutCancel(ctx), fingerprint); err != nil {
		c.log.Error("remove the files of an image", "fingerprint", fingerprint, "error", err)
	}
}

// PublishSpec says what to make an image of.
type PublishSpec struct {
	ImageSpec
	Instance string
	// Snapshot is published instead of the instance as it is now.
	Snapshot string
	// Compression is the server's images.compression_algorithm when empty.
	Compression string
}

// PublishImage makes an image of a stopped instance or of a snapshot, in the
// background.
func (c *Cluster) PublishImage(ctx context.Context, spec PublishSpec) (OperationInfo, error) {
	if err := spec.check(); err != nil {
		return OperationInfo{}, err
	}
	if spec.Compression == "" {
		spec.Compression = c.store.View().Setting("", "images.compression_algorithm")
	}
	compression, err := image.ParseCompression(spec.Compression)
	if err != nil {
		return OperationInfo{}, err
	}
	inst, err := c.Instance(ctx, spec.Project, spec.Instance)
	if err != nil {
		return OperationInfo{}, err
	}
	switch {
	case inst.Busy != "":
		return OperationInfo{}, errBusy(inst)
	case spec.Snapshot == "" && inst.Status != state.StatusStopped:
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "instance %q is running: stop it, or publish a snapshot of it", spec.Instance)
	}
	if spec.Snapshot != "" {
		if err := c.freeSnapshot(ctx, spec.Project, spec.Instance, spec.Snapshot); err != nil {
			return OperationInfo{}, err
		}
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Publishing image", Project: spec.Project, Resources: instanceResources(spec.Project, spec.Instance),
	}, func(ctx context.Context, op *Operation) error {
		fingerprint, err := c.publish(ctx, op, spec, compression)
		if err == nil {
			c.spreadImage(ctx, spec.Project, fingerprint)
		}
		return err
	})
}

// publish makes the image and records it.
func (c *Cluster) publish(ctx context.Context, op *Operation, spec PublishSpec, compression image.Compression) (fingerprint string, err error) {
	held, err := c.hold(ctx, spec.Project, spec.Instance, "publish")
	if err != nil {
		return "", err
	}
	defer held.release()
	defer c.imageArrives(ctx, "")()
	info, err := c.node.Publish(ctx, held.node, node.PublishSpec{
		Snapshot: spec.Snapshot, Properties: spec.Properties, Compression: compression,
		ExpiresAt: spec.ExpiresAt, Now: c.now(),
		Progress: func(read int64) {
			op.UpdateMetadata(map[string]any{"create_image_from_container_pack_progress": fmt.Sprintf("Image pack: %d MB", read>>20)})
		},
	})
	if err != nil {
		return "", err
	}
	return info.Fingerprint, c.recordImage(ctx, op, spec.ImageSpec, info)
}

// UpdateImage replaces what users may edit of an image.
func (c *Cluster) UpdateImage(ctx context.Context, changed state.Image, expect state.Revision) error {
	return c.apply(ctx, store.UpdateImage{
		Project: changed.Project, Fingerprint: changed.Fingerprint, Public: changed.Public, AutoUpdate: changed.AutoUpdate,
		Properties: changed.Properties, Profiles: changed.Profiles, ExpiresAt: changed.ExpiresAt, ExpectRevision: expect,
	})
}

// DeleteImage removes an image and its aliases in the background. Instances made
// from it go on.
func (c *Cluster) DeleteImage(ctx context.Context, project, fingerprint string) (OperationInfo, error) {
	doomed, err := c.Image(ctx, project, fingerprint)
	if err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Deleting image", Project: project, Resources: imageResources(project, doomed.Fingerprint),
	}, func(ctx context.Context, _ *Operation) error {
		intent, done, err := c.begin(ctx, state.Intent{
			Member: c.Self(), Kind: "delete", Project: project, Subject: store.SubjectImage, Name: doomed.Fingerprint,
		}, nil)
		if err != nil {
			return err
		}
		defer done()
		// The record goes first: files without a record are swept at the next
		// start, a record without files would offer what is not there.
		if err := c.finish(ctx, store.DeleteImage{Project: project, Fingerprint: doomed.Fingerprint, IntentID: intent}); err != nil {
			c.end(ctx, intent)
			return err
		}
		c.dropFiles(ctx, doomed.Fingerprint)
		c.endImageSecrets(ctx)
		return nil
	})
}

// endImageSecrets ends the operations of secrets that open an image which is not
// there any more. Whatever member looks first ends them.
func (c *Cluster) endImageSecrets(ctx context.Context) {
	view := c.store.View()
	for _, op := range c.ops.registered() {
		var secret secretInput // tokens of clients and of members have another input
		if op.Status.Final() || op.Class != coord.ClassToken || json.Unmarshal(op.Input, &secret) != nil || secret.Fingerprint == "" {
			continue
		}
		if _, err := view.Image(cmp.Or(op.Project, state.DefaultProject), secret.Fingerprint); !errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err := c.ops.Cancel(ctx, op.ID); err != nil && state.Kind(err) == nil {
			c.log.Warn("end the operation of an image secret", "operation", op.ID, "error", err)
		}
	}
}

// ImageFiles opens the files of an image for a download.
func (c *Cluster) ImageFiles(_ context.Context, fingerprint string) (image.Files, error) {
	return c.node.Images().Export(fingerprint)
}

// secretInput marks the operation of an image secret.
type secretInput struct {
	Fingerprint string `json:"fingerprint"`
}

// CreateImageSecret starts a token operation whose secret lets somebody who is
// not trusted read the image.
func (c *Cluster) CreateImageSecret(ctx context.Context, project, fingerprint string) (OperationInfo, error) {
	found, err := c.Image(ctx, project, fingerprint)
	if err != nil {
		return OperationInfo{}, err
	}
	secret := uuid.NewString() + uuid.NewString()
	return c.ops.Start(ctx, OperationSpec{
		Class: coord.ClassToken, Description: "Image download token", Project: project, MayCancel: true,
		Resources: imageResources(project, found.Fingerprint),
		Metadata:  map[string]any{"secret": secret, "fingerprint": found.Fingerprint},
		Input:     secretInput{Fingerprint: found.Fingerprint},
	}, nil)
}

// secretLife is how long a secret still works after its first use (LXD REST API,
// "/1.0/images/<fingerprint>/secret").
const secretLife = 5 * time.Second

// UseImageSecret reports whether the secret opens the image, and lets it expire
// soon after.
func (c *Cluster) UseImageSecret(ctx context.Context, project, fingerprint, secret string) bool {
	if secret == "" {
		return false
	}
	for _, op := range c.ops.List(project, false) {
		if op.Final() || op.Class != string(coord.ClassToken) || op.Metadata["secret"] != secret || op.Metadata["fingerprint"] != fingerprint {
			continue
		}
		if !Entitled(c.store.View(), op.Requestor, op.Project) {
			return false
		}
		c.expireSecret(ctx, op.ID)
		return true
	}
	return false
}

// expireSecret ends the operation of a secret a moment from now.
func (c *Cluster) expireSecret(ctx context.Context, id string) {
	ctx = context.WithoutCancel(ctx)
	time.AfterFunc(secretLife, func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := c.ops.Finish(ctx, id); err != nil && state.Kind(err) == nil {
			c.log.Warn("finish the operation of an image secret", "operation", id, "error", err)
		}
	})
}

// CreateAlias names an image.
func (c *Cluster) CreateAlias(ctx context.Context, alias state.ImageAlias) error {
	if err := state.ValidateAliasName(alias.Name); err != nil {
		return err
	}
	target, err := c.Image(ctx, alias.Project, alias.Target)
	if err != nil {
		return err
	}
	alias.Target = target.Fingerprint
	return c.apply(ctx, store.CreateAlias{Alias: alias})
}

// UpdateAlias replaces an alias's target and description.
func (c *Cluster) UpdateAlias(ctx context.Context, alias state.ImageAlias, expect state.Revision) error {
	target, err := c.Image(ctx, alias.Project, alias.Target)
	if err != nil {
		return err
	}
	return c.apply(ctx, store.UpdateAlias{
		Project: alias.Project, Name: alias.Name, Description: alias.Description, Target: target.Fingerprint, ExpectRevision: expect,
	})
}

// RenameAlias gives an alias another name.
func (c *Cluster) RenameAlias(ctx context.Context, project, name, newName string) error {
	if err := state.ValidateAliasName(newName); err != nil {
		return err
	}
	return c.apply(ctx, store.RenameAlias{Project: project, Name: name, NewName: newName})
}

// DeleteAlias removes an alias.
func (c *Cluster) DeleteAlias(ctx context.Context, project, name string) error {
	return c.apply(ctx, store.DeleteAlias{Project: project, Name: name})
}
