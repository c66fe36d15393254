package stream

import (
	"crypto/sha256"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Manifest is what a content consists of. Sender and receiver each keep one and
// change it by the same three steps (touch, put, drop), so that they agree at
// any moment, and at the end of a content can prove it (Digest).
type Manifest struct {
	root node
	// links are the other names of files, by the name that was first.
	links map[string]map[string]bool
}

type node struct {
	entry *Entry
	kids  map[string]*node
}

// NewManifest returns one without any file.
func NewManifest() *Manifest {
	return &Manifest{links: map[string]map[string]bool{}}
}

func (m *Manifest) find(path string) *node {
	n := &m.root
	for name := range strings.SplitSeq(path, "/") {
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
	return n
}

// get returns the entry at path, or nil.
func (m *Manifest) get(path string) *Entry {
	if n := m.find(path); n != nil {
		return n.entry
	}
	return nil
}

// kids returns the sorted names in the directory at path.
func (m *Manifest) kids(path string) []string {
	n := &m.root
	if path != "" {
		n = m.find(path)
	}
	if n == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(n.kids))
}

// place returns the node at path, made if need be. Its directory must be there.
func (m *Manifest) place(path string) (*node, error) {
	dir, name := split(path)
	parent := &m.root
	if dir != "" {
		parent = m.find(dir)
		if parent == nil || parent.entry.Kind != KindDir {
			return nil, refused("%.100q comes without its directory", path)
		}
	}
	n := parent.kids[name]
	if n == nil {
		n = &node{}
		if parent.kids == nil {
			parent.kids = map[string]*node{}
		}
		parent.kids[name] = n
	}
	return n, nil
}

// touch notes that whatever is at path is about to be replaced: it is not known
// any more, and neither are the other names of it nor what is below it.
func (m *Manifest) touch(path string) error {
	n, err := m.place(path)
	if err != nil {
		return err
	}
	m.forget(n, path)
	n.entry, n.kids = &Entry{Path: path, Kind: KindUnknown}, nil
	return nil
}

// put notes that e is at its path.
func (m *Manifest) put(e *Entry) error {
	n, err := m.place(e.Path)
	if err != nil {
		return err
	}
	if e.Kind == KindLink {
		t := m.get(e.Target)
		if t == nil || t.Kind == KindDir || t.Kind == KindLink || t.Kind == KindUnknown || t.Kind == KindPartial {
			return refused("%.100q links to %.100q, which is no file", e.Path, e.Target)
		}
	}
	if n.entry != nil && (n.entry.Kind == KindLink || e.Kind != KindDir && n.kids != nil) {
		m.forget(n, e.Path)
		n.kids = nil
	}
	n.entry = e
	if e.Kind == KindLink {
		if m.links[e.Target] == nil {
			m.links[e.Target] = map[string]bool{}
		}
		m.links[e.Target][e.Path] = true
	}
	return nil
}

// drop notes that nothing is at path or below.
func (m *Manifest) drop(path string) {
	n := m.find(path)
	if n == nil {
		return
	}
	m.forget(n, path)
	dir, name := split(path)
	parent := &m.root
	if dir != "" {
		parent = m.find(dir)
	}
	delete(parent.kids, name)
}

// forget takes a node and all below out of the links. Other names of what goes
// are not known any more: they may mean the old file or a new one.
func (m *Manifest) forget(n *node, path string) {
	for name, kid := range n.kids {
		m.forget(kid, path+"/"+name)
	}
	if n.entry != nil && n.entry.Kind == KindLink {
		delete(m.links[n.entry.Target], path)
		if len(m.links[n.entry.Target]) == 0 {
			delete(m.links, n.entry.Target)
		}
	}
	others := m.links[path]
	delete(m.links, path)
	for other := range others {
		if o := m.find(other); o != nil {
			o.entry = &Entry{Path: other, Kind: KindUnknown}
		}
	}
}

// grouped reports whether the file at path has other names.
func (m *Manifest) grouped(path string) bool { return len(m.links[path]) > 0 }

// all yields every entry, a directory before what is in it.
func (m *Manifest) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) { m.root.each(yield) }
}

func (n *node) each(yield func(*Entry) bool) bool {
	if n.entry != nil && !yield(n.entry) {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		if !n.kids[name].each(yield) {
			return false
		}
	}
	return true
}

// listed is all in an order in which each entry can be put: other names of a
// file come after the file, which a change may have put anywhere.
func (m *Manifest) listed() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for e := range m.all() {
			if e.Kind != KindLink && !yield(e) {
				return
			}
		}
		for e := range m.all() {
			if e.Kind == KindLink && !yield(e) {
				return
			}
		}
	}
}

// Digest is equal for equal manifests.
func (m *Manifest) Digest() Sum {
	h := sha256.New()
	var buf []byte
	for e := range m.all() {
		buf = e.append(buf[:0])
		h.Write(appendString(nil, string(buf)))
	}
	return Sum(h.Sum(nil))
}

// Partial reports whether a file arrived in part.
func (m *Manifest) Partial() bool {
	for e := range m.all() {
		if e.Kind == KindPartial {
			return true
		}
	}
	return false
}

// whole returns an error unless everything in the manifest is known.
func (m *Manifest) whole() error {
	for e := range m.all() {
		if e.Kind == KindUnknown || e.Kind == KindPartial {
			return refused("%.100q is missing", e.Path)
		}
	}
	if m.get(nameRootFS) == nil {
		return refused("there is no directory rootfs")
	}
	return nil
}

// clone returns a copy with entries of its own.
func (m *Manifest) clone() *Manifest {
	c := &Manifest{root: m.root.clone(), links: map[string]map[string]bool{}}
	for path, others := range m.links {
		c.links[path] = maps.Clone(others)
	}
	return c
}

func (n *node) clone() node {
	c := node{}
	if n.entry != nil {
		e := *n.entry
		c.entry = &e
	}
	if n.kids != nil {
		c.kids = make(map[string]*node, len(n.kids))
		for name, kid := range n.kids {
			k := kid.clone()
			c.kids[name] = &k
		}
	}
	return c
}

// Inherit prepares the manifest of one content for being that of the next. What
// was changed last before a snapshot may have been changed again right after,
// within the same tick of the file system's clock, so such times prove nothing.
func (m *Manifest) Inherit() {
	var newest Time
	for e := range m.all() {
		if newest.before(e.CTime) {
			newest = e.CTime
		}
	}
	newest.Sec--
	for e := range m.all() {
		if !e.CTime.before(newest) {
			e.CTime = Time{}
		}
	}
}
