package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
)

// This file makes one layer of several, so that chains stay short. Nothing is
// written to the old layers and files are not copied but given another name, so
// it costs a directory entry per file and no data.

const (
	attrOpaque   = "trusted.overlay.opaque"
	attrRedirect = "trusted.overlay.redirect"
)

// maxLayers is how long a chain may become: each layer is one more directory
// to look into for the kernel.
const maxLayers = 8

// shorten merges the layers of a volume that is not mounted, all but the lowest
// (the image), if they have become too many. A chain that cannot be merged now,
// for want of space, works as it is.
func (d *overlayDriver) shorten(ctx context.Context, content string, c *chain) (*chain, error) {
	if len(c.Layers) <= maxLayers {
		return c, nil
	}
	return d.mergeRun(ctx, content, c, 0, len(c.Layers)-1)
}

// compact merges the layers of a volume that is not mounted and that nobody
// else needs any more, after a snapshot went: what the lower of them have and
// the upper hide is only then freed.
func (d *overlayDriver) compact(ctx context.Context, content string) error {
	c, err := readChain(content)
	if err != nil || c == nil {
		return err
	}
	for i := 0; i < len(c.Layers)-1; i++ { //nolint:intrange // merging makes the chain shorter
		end := i
		for end < len(c.Layers)-1 && d.exclusive(c.Layers[end]) {
			end++
		}
		if end-i < 2 {
			continue
		}
		if c, err = d.mergeRun(ctx, content, c, i, end); err != nil {
			return err
		}
	}
	return nil
}

// exclusive reports whether one chain only has the layer.
func (d *overlayDriver) exclusive(l layer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !l.Image && d.refs[l.key()] == 1
}

// mergeRun replaces the layers from first to before end by one.
func (d *overlayDriver) mergeRun(ctx context.Context, content string, c *chain, first, end int) (*chain, error) {
	run := c.Layers[first:end]
	merged, err := d.merge(ctx, run)
	if err != nil {
		d.pool.log.Warn("layers could not be merged and stay as they are", "content", content, "layers", len(c.Layers), "error", err)
		return c, nil
	}
	shorter := &chain{Upper: c.Upper, Project: c.Project}
	shorter.Layers = append(append(append(shorter.Layers, c.Layers[:first]...), merged), c.Layers[end:]...)
	d.keep([]layer{merged})
	if err := writeChain(content, shorter); err != nil {
		return nil, errors.Join(err, d.drop(ctx, []layer{merged}))
	}
	return shorter, d.drop(ctx, run)
}

// merge makes a layer that, on top of whatever the run stands on, shows what
// the run shows there.
func (d *overlayDriver) merge(ctx context.Context, run []layer) (merged layer, err error) {
	merged, err = d.newLayer(run[0].IDs, 0)
	defer func() {
		if err != nil {
			err = errors.Join(err, tree.Remove(d.pool.in(dirLayers, merged.ID)))
		}
	}()
	if err != nil {
		return merged, err
	}
	// Layers written under other maps are seen as the topmost would have
	// written them; across such a mount files cannot be linked and are copied.
	err = d.withLayers(run, run[0].IDs, func(dirs []string) error {
		m := merger{ctx: ctx, roots: dirs, target: d.files(merged), linked: map[fileID]string{}}
		root := mergedDir{below: "/"}
		for i := range dirs {
			root.stack = append(root.stack, spot{layer: i, path: "/"})
		}
		return m.dir(root, "/")
	})
	return merged, err
}

// merger is one run of merge. It follows links nowhere: the layers are not in
// use, and it passes only what it has seen to be directories.
//
//nolint:containedctx // it lives exactly as long as the call to merge
type merger struct {
	ctx    context.Context
	roots  []string // the layers' directories, topmost first
	target string
	linked map[fileID]string // copied files by their original
}

type fileID struct{ dev, ino uint64 }

// spot is a path in one of the merged layers.
type spot struct {
	layer int
	path  string
}

func (m *merger) at(s spot) string { return filepath.Join(m.roots[s.layer], s.path) }

// mergedDir is a directory of the merged view: the directories that it consists
// of, the topmost first, and the path at which it goes on in the layers below
// the run ("" if it does not).
type mergedDir struct {
	stack []spot
	below string
}

// dir makes the directory at name in the target from what it consists of.
func (m *merger) dir(from mergedDir, name string) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, s := range from.stack {
		entries, err := os.ReadDir(m.at(s))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			if err := m.entry(from, e.Name(), path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return tree.CopyAttributes(filepath.Join(m.target, name), m.at(from.stack[0]), func(attr string) bool {
		return attr == attrOpaque || attr == attrRedirect || isVolatileAttr(attr)
	})
}

func (m *merger) entry(parent mergedDir, entry, name string) error {
	found, err := m.lookup(parent, entry)
	if err != nil {
		return fmt.Errorf("look up %q: %w", name, err)
	}
	target := filepath.Join(m.target, name)
	switch {
	case found.file != nil:
		return m.file(m.at(*found.file), target)
	case len(found.dir.stack) == 0:
		if parent.below == "" {
			return nil // there is nothing below that would have to be hidden
		}
		return unix.Mknod(target, unix.S_IFCHR, 0)
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	if err := m.dir(found.dir, name); err != nil {
		return err
	}
	switch {
	case found.dir.below == "":
		if parent.below == "" {
			return nil
		}
		return unix.Lsetxattr(target, attrOpaque, []byte("y"), 0)
	case parent.below == "" || found.dir.below != path.Join(parent.below, entry):
		return unix.Lsetxattr(target, attrRedirect, []byte(found.dir.below), 0)
	}
	return nil
}

// file gives a file of a layer a name in the target.
func (m *merger) file(from, to string) error {
	err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0)
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EMLINK) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	id := fileID{st.Dev, st.Ino}
	if first, ok := m.linked[id]; ok {
		if err := os.Link(first, to); !errors.Is(err, unix.EMLINK) {
			return err
		}
	}
	m.linked[id] = to
	return tree.CopyFile(m.ctx, to, from, tree.Options{SkipXattr: isVolatileAttr})
}

// lookedUp is what a name stands for: a file, a directory, or, with an empty
// stack, nothing that may be seen.
type lookedUp struct {
	file *spot
	dir  mergedDir
}

// search is the state of a lookup on its way down the layers. It does what
// overlayfs does (Documentation/filesystems/overlayfs.rst and fs/overlayfs/
// namei.c of Linux): a directory can be opaque, or redirect the search to
// another name or path in the layers below it.
type search struct {
	name string // one name, or an absolute path after a redirect
	dir  bool   // what was found so far is a directory
	stop bool   // nothing below counts
}

func (m *merger) lookup(parent mergedDir, entry string) (lookedUp, error) {
	var found lookedUp
	s := search{name: entry}
	stack := parent.stack
	for i := 0; i < len(stack) && !s.stop; i++ {
		this, isDir, err := m.lookupLayer(stack[i], &s)
		if err != nil {
			return found, err
		}
		if this == nil {
			continue
		}
		if !isDir {
			found.file = this
			return found, nil
		}
		found.dir.stack = append(found.dir.stack, *this)
		if !s.stop && strings.HasPrefix(s.name, "/") {
			// From here on the path is one from the root of each layer.
			stack = nil
			for layer := range m.roots {
				stack = append(stack, spot{layer: layer, path: "/"})
			}
			i = this.layer
		}
	}
	switch {
	case s.stop || len(found.dir.stack) == 0:
	case strings.HasPrefix(s.name, "/"):
		found.dir.below = s.name
	case parent.below != "":
		found.dir.below = path.Join(parent.below, s.name)
	}
	return found, nil
}

// lookupLayer looks for s.name in one layer: below the directory dir, or from
// the layer's root if the name is an absolute path.
func (m *merger) lookupLayer(dir spot, s *search) (*spot, bool, error) {
	if !strings.HasPrefix(s.name, "/") {
		return m.lookupOne(dir, s, "", s.name, "")
	}
	at := spot{layer: dir.layer, path: "/"}
	// A redirect on the way changes what was passed, not what is to come.
	for rest := s.name; ; {
		passed := s.name[:len(s.name)-len(rest)+1]
		name, post, more := strings.Cut(rest[1:], "/")
		if more {
			post = "/" + post
		}
		this, isDir, err := m.lookupOne(at, s, passed, name, post)
		if this == nil || !isDir || !more || err != nil {
			return this, isDir, err
		}
		at, rest = *this, post
	}
}

// lookupOne looks for one name in one directory. The path sought is
// before+name+post; before is empty in a search for a single name.
func (m *merger) lookupOne(dir spot, s *search, before, name, post string) (*spot, bool, error) {
	this := spot{layer: dir.layer, path: path.Join(dir.path, name)}
	last := post == ""
	var st unix.Stat_t
	err := unix.Lstat(m.at(this), &st)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		s.stop = true // a whiteout
		return nil, false, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s.stop = true
		if s.dir || !last {
			return nil, false, nil
		}
		return &this, false, nil
	}
	if last {
		s.dir = true
	}
	attrs, err := tree.Xattrs(m.at(this))
	if err != nil {
		return nil, false, err
	}
	if attrs[attrOpaque] == "y" {
		s.stop = true
		return &this, true, nil
	}
	redirect := attrs[attrRedirect]
	switch {
	case redirect == "":
	case strings.HasPrefix(redirect, "/"):
		// It counts even below a directory that is opaque.
		s.stop = false
		s.name = redirect + post
	default:
		s.name = before + redirect + post
	}
	return &this, true, nil
}
