package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"muster/state"
)

// chainAttr keeps the chain of an overlay content, as an attribute of its
// directory. Replacing an attribute is one step in the file system's journal,
// in order with everything a container syncs later; a file would need an fsync
// for that on every change.
const chainAttr = "trusted.muster.chain"

// chain is what an overlay content is made of.
type chain struct {
	// Upper is written to. It is nil from each freeze to the next mount.
	Upper *layer
	// Layers are read-only, the topmost first; there is always one.
	Layers []layer
	// Project is the project ID of the quota, or zero.
	Project uint32
}

// layer is a directory with files.
type layer struct {
	ID string
	// Image says that ID is the fingerprint of an image.
	Image bool
	// IDs is the id map under which the files were written.
	IDs *IDMap
}

// key names the layer among all of the pool.
func (l layer) key() string {
	if l.Image {
		return dirImages + "/" + l.ID
	}
	return dirLayers + "/" + l.ID
}

// all returns every layer that the chain needs.
func (c *chain) all() []layer {
	if c.Upper == nil {
		return c.Layers
	}
	return append([]layer{*c.Upper}, c.Layers...)
}

// written is the form of a chain on disk: each map once, since a member's
// layers mostly have the same.
type written struct {
	Maps    []*IDMap       `json:"maps,omitempty"`
	Upper   *writtenLayer  `json:"upper,omitempty"`
	Layers  []writtenLayer `json:"layers"`
	Project uint32         `json:"project,omitempty"`
}

type writtenLayer struct {
	ID    string `json:"id"`
	Image bool   `json:"image,omitempty"`
	// Map counts from 1; 0 is no map.
	Map int `json:"map,omitempty"`
}

func (c *chain) encode() ([]byte, error) {
	w := written{Project: c.Project, Layers: []writtenLayer{}}
	put := func(l layer) writtenLayer {
		out := writtenLayer{ID: l.ID, Image: l.Image}
		if l.IDs != nil {
			at := slices.IndexFunc(w.Maps, l.IDs.same)
			if at < 0 {
				at = len(w.Maps)
				w.Maps = append(w.Maps, l.IDs)
			}
			out.Map = at + 1
		}
		return out
	}
	for _, l := range c.Layers {
		w.Layers = append(w.Layers, put(l))
	}
	if c.Upper != nil {
		u := put(*c.Upper)
		w.Upper = &u
	}
	return json.Marshal(w)
}

func decodeChain(data []byte) (*chain, error) {
	var w written
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, err
	}
	c := &chain{Project: w.Project}
	get := func(l writtenLayer) (layer, error) {
		out := layer{ID: l.ID, Image: l.Image}
		if l.Map < 0 || l.Map > len(w.Maps) {
			return out, fmt.Errorf("layer %s has a map that is not there", l.ID)
		}
		if l.Map > 0 {
			out.IDs = w.Maps[l.Map-1]
		}
		return out, nil
	}
	for _, l := range w.Layers {
		got, err := get(l)
		if err != nil {
			return nil, err
		}
		c.Layers = append(c.Layers, got)
	}
	if w.Upper != nil {
		got, err := get(*w.Upper)
		if err != nil {
			return nil, err
		}
		c.Upper = &got
	}
	if len(c.Layers) == 0 {
		return nil, errors.New("no layers")
	}
	return c, nil
}

// readChain returns the chain of a content, or nil when it has none (an image,
// a custom volume).
func readChain(path string) (*chain, error) {
	buf := make([]byte, 64<<10) // the kernel's limit
	n, err := unix.Lgetxattr(path, chainAttr, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the layers of %s: %w", path, err)
	}
	c, err := decodeChain(buf[:n])
	if err != nil {
		return nil, fmt.Errorf("the layers of %s are damaged: %w", path, err)
	}
	return c, nil
}

func writeChain(path string, c *chain) error {
	data, err := c.encode()
	if err != nil {
		return err
	}
	err = unix.Lsetxattr(path, chainAttr, data, 0)
	if errors.Is(err, unix.ENOSPC) && len(data) > 3000 || errors.Is(err, unix.E2BIG) {
		// One block is what ext4 has for attributes.
		return state.Errorf(state.ErrInvalid, "the id maps of the instance are too long to be remembered with its layers; give it fewer ranges")
	}
	if err != nil {
		return fmt.Errorf("write the layers of %s: %w", path, err)
	}
	return nil
}
