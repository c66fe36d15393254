package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/canonical/go-dqlite"
	"github.com/canonical/go-dqlite/client"

	"muster/state"
)

// OnDisk is what a store's directory says of the consensus while nobody runs it.
type OnDisk struct {
	// Revision is the newest one that was acknowledged or shown on this member.
	Revision state.Revision
	// Roles are those of the members, by ID, as the newest configuration in this
	// member's log has them. It is empty on a member that has no log.
	Roles map[string]Role

	owner identity
}

// Inspect reads a store's directory and changes nothing. No store may be open on it.
func Inspect(dir string) (OnDisk, error) {
	d := &directory{path: dir}
	raw, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return OnDisk{}, state.Errorf(state.ErrNotFound, "there is no database in %s", dir)
	}
	if err != nil {
		return OnDisk{}, err
	}
	found := OnDisk{Roles: map[string]Role{}}
	if err := json.Unmarshal(raw, &found.owner); err != nil || found.owner.MemberID == "" {
		return OnDisk{}, d.damaged("%s does not say whose the database is", identityFile)
	}
	if mark, err := os.ReadFile(filepath.Join(dir, markFile)); err == nil {
		revision, _ := strconv.ParseUint(strings.TrimSpace(string(mark)), 10, 64) // see readMark
		found.Revision = state.Revision(revision)
	}
	log, err := d.readLog()
	if err != nil {
		return OnDisk{}, err
	}
	newest, err := d.newestConfiguration(log)
	if err != nil {
		return OnDisk{}, err
	}
	for _, node := range newest {
		for role, number := range roles {
			if number == node.Role {
				found.Roles[node.Address] = role
			}
		}
	}
	return found, nil
}

// Recover makes the member whose store is in dir the only one that votes, on what its
// own log holds: for a cluster whose other voters are gone for good. What they
// acknowledged and this member never received is lost, so the mark that would refuse
// such a state is taken away. It may be cut off anywhere and begun again. No store may
// be open on the directory.
func Recover(dir string) error {
	found, err := Inspect(dir)
	if err != nil {
		return err
	}
	if role := found.Roles[found.owner.MemberID]; role != Voter && role != Standby {
		return state.Errorf(state.ErrConflict, "this member has no copy of the database: recover on one that voted or stood by")
	}
	// First: a start after a crash behind the next step must not refuse what is left.
	if err := os.Remove(filepath.Join(dir, markFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	making.Lock()
	defer making.Unlock()
	err = dqlite.ReconfigureMembershipExt(dir, []client.NodeInfo{{
		ID: found.owner.NodeID, Address: found.owner.MemberID, Role: client.Voter,
	}})
	if err != nil {
		return fmt.Errorf("make this member the database's only voter: %w", err)
	}
	return nil
}

// The types of entries in the log and the format of its configurations (libraft 0.15:
// include/raft.h, src/configuration.c).
const (
	entryChange         = 3
	configurationFormat = 1
)

// newestConfiguration returns who takes part in the consensus by the newest word of the
// log, be it committed or not: so does the node when it starts.
func (d *directory) newestConfiguration(log *logFiles) ([]client.NodeInfo, error) {
	var newest []client.NodeInfo
	take := func(what string, encoded []byte) error {
		nodes, err := decodeConfiguration(encoded)
		if err != nil {
			return d.damaged("%s: %w", what, err)
		}
		newest = nodes
		return nil
	}
	for _, name := range log.metas {
		encoded, err := snapshotConfiguration(filepath.Join(d.path, name))
		if err == nil {
			err = take(name, encoded)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range log.segments {
		content, err := os.ReadFile(filepath.Join(d.path, name))
		if err != nil {
			return nil, err
		}
		for _, encoded := range segmentChanges(content) {
			if err := take(name, encoded); err != nil {
				return nil, err
			}
		}
	}
	return newest, nil
}

// snapshotConfiguration reads the configuration from what describes a snapshot: a word
// of format, a checksum, the index of the configuration, its size, and itself.
func snapshotConfiguration(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(content) < 32 || uint64(len(content)-32) < binary.LittleEndian.Uint64(content[24:]) {
		return nil, fmt.Errorf("%s is cut short", path)
	}
	return content[32 : 32+binary.LittleEndian.Uint64(content[24:])], nil
}

// segmentChanges returns the configurations among a segment's entries; see segment.go
// for the layout.
func segmentChanges(content []byte) [][]byte {
	if len(content) < 8 || binary.LittleEndian.Uint64(content) != segmentFormat {
		return nil
	}
	var changes [][]byte
	at := 8
	for size := batchAt(content[at:]); size > 0; size = batchAt(content[at:]) {
		batch := content[at : at+size]
		entries := binary.LittleEndian.Uint64(batch[8:])
		data := 16 + 16*entries
		for i := range entries {
			head := batch[16+16*i:]
			length := uint64(binary.LittleEndian.Uint32(head[12:]))
			if head[8] == entryChange {
				changes = append(changes, batch[data:data+length])
			}
			data += length
		}
		at += size
	}
	return changes
}

// decodeConfiguration reads: a byte of format, the number of servers, and for each its
// number, its address up to a zero, and its role.
func decodeConfiguration(encoded []byte) ([]client.NodeInfo, error) {
	cut := errors.New("a configuration is cut short")
	if len(encoded) < 9 {
		return nil, cut
	}
	if encoded[0] != configurationFormat {
		return nil, fmt.Errorf("a configuration has format %d, which is not known here", encoded[0])
	}
	count, rest := binary.LittleEndian.Uint64(encoded[1:]), encoded[9:]
	var nodes []client.NodeInfo
	for range count {
		if len(rest) < 8 {
			return nil, cut
		}
		end := bytes.IndexByte(rest[8:], 0)
		if end < 0 || len(rest) < 8+end+2 {
			return nil, cut
		}
		nodes = append(nodes, client.NodeInfo{
			ID: binary.LittleEndian.Uint64(rest), Address: string(rest[8 : 8+end]), Role: diskRole(rest[8+end+1]),
		})
		rest = rest[8+end+2:]
	}
	return slices.Clip(nodes), nil
}

// diskRole is a role as the log has it (RAFT_STANDBY, RAFT_VOTER, RAFT_SPARE), which
// counts otherwise than dqlite's clients.
func diskRole(number byte) client.NodeRole {
	switch number {
	case 0:
		return client.StandBy
	case 1:
		return client.Voter
	}
	return client.Spare
}

// LostKey is the configuration key of a member that was given up when a cluster was
// recovered: it is known for what it had, and is refused like one that was removed.
const LostKey = "volatile.lost"
