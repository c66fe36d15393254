package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"muster/cluster"
	"muster/state"
	"muster/state/store"
)

// book is where the members are, on this member's disk: what is remembered of them
// in the state plane can be read only once some of them have been reached.
type book struct {
	path string

	mu      sync.Mutex
	content bookContent // guarded by mu
	// former are members that were removed, as long as they may still be told.
	former map[string]former // guarded by mu
}

// former is a member that was removed, or is about to be.
type former struct {
	cluster.Peer
	// cut is closed when its connections have been.
	cut chan struct{}
}

type bookContent struct {
	// Joined says that this member belongs to a cluster of which others have the logs: it
	// joined it, or began it and has given its logs up. What it has itself, its disk says.
	Joined bool `json:"joined"`
	// Joining says that the join has not ended: the cluster may still take it back.
	Joining bool                    `json:"joining,omitempty"`
	Peers   map[string]cluster.Peer `json:"peers"`
	// Moved are members that were given another address here, on this machine's disk,
	// and have not recorded it in the state plane yet.
	Moved map[string]move `json:"moved,omitempty"`
}

// move says that a member is at To, and no longer where the state plane has it.
type move struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// openBook reads the book in dir; a member that never had others has an empty one.
func openBook(dir string) (*book, error) {
	b := &book{path: filepath.Join(dir, "members.json"), content: bookContent{Peers: map[string]cluster.Peer{}}}
	data, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &b.content); err != nil || b.content.Peers == nil {
		return nil, state.Errorf(state.ErrConflict, "%s is damaged: restore it from a backup, or copy \"peers\" from another member's", b.path)
	}
	return b, nil
}

// joined reports whether this member belongs to a cluster of which others have the logs.
func (b *book) joined() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Joined
}

// find returns where the member with that ID is.
func (b *book) find(id string) (cluster.Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	peer, known := b.content.Peers[id]
	return peer, known
}

// reach is find for the way out: it also knows members that were removed just now.
func (b *book) reach(id string) (cluster.Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if peer, known := b.content.Peers[id]; known {
		return peer, true
	}
	gone, known := b.former[id]
	return gone.Peer, known
}

// removed returns a member of that name which was removed just now, and what is closed
// when its connections have been.
func (b *book) removed(name string) (id string, cut <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, gone := range b.former {
		if gone.Name == name {
			return id, gone.cut
		}
	}
	return "", nil
}

// wasCut notes that the connections of a member that is gone have been cut.
func (b *book) wasCut(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if gone, known := b.former[id]; known {
		close(gone.cut)
	}
}

// remember keeps a member that is about to be removed, so that it can be told; forget
// ends that.
func (b *book) remember(id string) (forget func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.former == nil {
		b.former = map[string]former{}
	}
	b.former[id] = former{b.content.Peers[id], make(chan struct{})}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.former, id)
	}
}

// ids are those of the other members.
func (b *book) ids(self string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id := range b.content.Peers {
		if id != self {
			ids = append(ids, id)
		}
	}
	return ids
}

// controllers are the other members that have the logs, as it was last known.
func (b *book) controllers(self string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id, peer := range b.content.Peers {
		if id != self && peer.Control {
			ids = append(ids, id)
		}
	}
	return ids
}

// joining reports whether this member's join has not ended, as far as this disk tells.
func (b *book) joining() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Joining
}

// endJoin notes that this member's join has ended.
func (b *book) endJoin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	content := b.content
	content.Joining = false
	if err := writeBook(b.path, content); err != nil {
		return err
	}
	b.content = content
	return nil
}

// join notes that this member belongs to a cluster of which others have the logs.
func (b *book) join() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.content.Joined {
		return nil
	}
	content := b.content
	content.Joined = true
	if err := writeBook(b.path, content); err != nil {
		return err
	}
	b.content = content
	return nil
}

// others is how many members there are besides the one with that ID.
func (b *book) others(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := len(b.content.Peers)
	if _, known := b.content.Peers[id]; known {
		count--
	}
	return count
}

// follow takes the members over from the state plane. It returns those that are gone,
// and those that are elsewhere by now.
func (b *book) follow(view *store.View, controls func(memberID string) bool) (gone, elsewhere []string, err error) {
	peers := map[string]cluster.Peer{}
	for _, m := range view.Members() {
		if m.Address != "" && m.Config[store.LostKey] == "" {
			peers[m.ID] = cluster.Peer{ID: m.ID, Name: m.Name, Address: m.Address, Control: controls(m.ID)}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	moved := map[string]move{}
	for id, to := range b.content.Moved {
		if peer, stays := peers[id]; stays && peer.Address == to.From {
			moved[id], peer.Address = to, to.To
			peers[id] = peer
		}
	}
	if maps.Equal(peers, b.content.Peers) && maps.Equal(moved, b.content.Moved) {
		return nil, nil, nil
	}
	b.content.Moved = moved
	for id, before := range b.content.Peers {
		if now, stays := peers[id]; !stays {
			gone = append(gone, id)
		} else if now.Address != before.Address {
			elsewhere = append(elsewhere, id)
		}
	}
	b.content.Peers = peers
	return gone, elsewhere, writeBook(b.path, b.content)
}

// writeBook replaces the file whole.
func writeBook(path string, content bookContent) error {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(path, append(data, '\n'))
}

// writeWhole replaces a file: after a crash it has the old content or the new.
func writeWhole(path string, data []byte) error {
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// named returns the ID of the member of that name, or "".
func (b *book) named(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, peer := range b.content.Peers {
		if peer.Name == name {
			return id
		}
	}
	return ""
}

// relocate gives a member another address, which counts until the state plane has
// another one than now.
func (b *book) relocate(id, address string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	peer := b.content.Peers[id]
	from := peer.Address
	if earlier, moved := b.content.Moved[id]; moved {
		from = earlier.From
	}
	if b.content.Moved == nil {
		b.content.Moved = map[string]move{}
	}
	b.content.Moved[id] = move{From: from, To: address}
	peer.Address = address
	b.content.Peers[id] = peer
	return writeBook(b.path, b.content)
}

// moved returns where the member with that ID was said to be, on this disk.
func (b *book) moved(id string) (move, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	to, found := b.content.Moved[id]
	return to, found
}
