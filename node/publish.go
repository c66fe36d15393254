package node

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"time"

	"muster/node/image"
	"muster/node/storage"
	"muster/state"
)

// PublishSpec says how to make an image of an instance.
type PublishSpec struct {
	// Snapshot is published instead of the instance as it is now.
	Snapshot    string
	Properties  map[string]string
	Compression image.Compression
	// ExpiresAt may be zero.
	ExpiresAt time.Time
	// Now is the image's creation date.
	Now      time.Time
	Progress func(read int64)
}

// Publish packs the instance's root file system as an image in this machine's
// store.
func (n *Node) Publish(ctx context.Context, inst Instance, spec PublishSpec) (image.Info, error) {
	pool, volume, err := n.volumeOf(ctx, inst, spec.Snapshot)
	if err != nil {
		return image.Info{}, err
	}
	var info image.Info
	err = pool.ViewVolume(ctx, volume, func(mounted storage.Mounted) error {
		metadata, err := image.ReadMetadata(mounted.Dir)
		if err != nil {
			if !errors.Is(err, state.ErrNotFound) {
				return err
			}
			metadata = image.Metadata{Architecture: inst.Architecture}
		}
		if metadata.Architecture == "" {
			metadata.Architecture = inst.Architecture
		}
		metadata.CreationDate = spec.Now.Unix()
		metadata.ExpiryDate = 0
		if !spec.ExpiresAt.IsZero() {
			metadata.ExpiryDate = spec.ExpiresAt.Unix()
		}
		properties := maps.Clone(metadata.Properties)
		if properties == nil {
			properties = map[string]string{}
		}
		maps.Copy(properties, spec.Properties)
		metadata.Properties = properties
		templates := ""
		if len(metadata.Templates) > 0 {
			templates = filepath.Join(mounted.Dir, "templates")
		}
		info, err = n.cfg.Images.Publish(ctx, image.PublishSpec{
			RootFS: mounted.RootFS, Metadata: metadata, TemplatesDir: templates,
			Compression: spec.Compression, Progress: spec.Progress,
		})
		return err
	})
	return info, err
}
