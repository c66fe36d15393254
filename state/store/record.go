package store

import (
	"encoding/json"
	"fmt"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// Record is a Change on its way: into the table of changes, to other members, and
// into their Views. It holds the objects as JSON.
type Record struct {
	Revision state.Revision
	Index    int `json:",omitempty"`
	Kind     Kind
	// Before is there when the object was deleted or renamed.
	Before    json.RawMessage `json:",omitempty"`
	After     json.RawMessage `json:",omitempty"`
	Action    string          `json:",omitempty"`
	Context   map[string]any  `json:",omitempty"`
	Requestor *Requestor      `json:",omitempty"`
	At        time.Time
}

// draft is a Record in the making: it holds the objects themselves, so that they
// are encoded once.
type draft struct {
	Revision  state.Revision
	Index     int `json:",omitempty"`
	Kind      Kind
	Before    any            `json:",omitempty"`
	After     any            `json:",omitempty"`
	Action    string         `json:",omitempty"`
	Context   map[string]any `json:",omitempty"`
	Requestor *Requestor     `json:",omitempty"`
	At        time.Time
}

// change decodes the record into fresh objects.
func (r *Record) change() (Change, error) {
	c := Change{
		Revision: r.Revision, Index: r.Index, Kind: r.Kind,
		Action: r.Action, Context: r.Context, Requestor: r.Requestor, At: r.At,
	}
	var err error
	if c.Before, err = decodeNoun(r.Kind, r.Before); err != nil {
		return Change{}, err
	}
	c.After, err = decodeNoun(r.Kind, r.After)
	return c, err
}

// decodeChange decodes a row of the table of changes, in one pass when the kind is
// known.
func decodeChange(kind Kind, raw []byte) (Change, error) {
	switch kind {
	case KindInstance:
		return decodeDraft[state.Instance](raw)
	case KindIntent:
		return decodeDraft[state.Intent](raw)
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Change{}, err
	}
	return r.change()
}

// decodeDraft is decodeChange for the kinds that change most.
func decodeDraft[N any](raw []byte) (Change, error) {
	var d struct {
		Record
		Before, After *N
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return Change{}, err
	}
	c, err := d.change()
	// A nil pointer in an interface would not be nil.
	if d.Before != nil {
		metaOf(d.Before).Memo = &state.Memo{}
		c.Before = d.Before
	}
	if d.After != nil {
		metaOf(d.After).Memo = &state.Memo{}
		c.After = d.After
	}
	return c, err
}

// decodeHistory decodes rows of the table of changes.
func decodeHistory(rows []sqlgen.Change) ([]Change, error) {
	changes := make([]Change, len(rows))
	for i, row := range rows {
		var err error
		if changes[i], err = decodeChange("", []byte(row.Body)); err != nil {
			return nil, fmt.Errorf("decode the change at %d: %w", row.Position, err)
		}
	}
	return changes, nil
}

// decodeNoun decodes an object with an empty memory for its encodings; nothing
// decodes to nil.
func decodeNoun(kind Kind, raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	noun, err := newNoun(kind)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, noun); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	metaOf(noun).Memo = &state.Memo{}
	return noun, nil
}

// position is where a change stands in the table of changes.
func position(revision state.Revision, index int) int64 { return int64(revision)<<16 | int64(index) }

// indexMax is the greatest Index: a command with more changes is refused.
const indexMax = 0xffff

// Batch is a piece of the stream from a member's store to another's.
type Batch struct {
	// Snapshot says that Records are all objects there are, each as After, and that
	// what was known before is void. Otherwise they are changes that follow on the
	// last piece.
	Snapshot bool
	// Revision is the one that the receiver has reached with this piece.
	Revision state.Revision
	// Schema is that of the database that a snapshot shows.
	Schema  int64
	Records []Record
	// Leader is the leader of the database as the sender knows it, or "".
	Leader string
}

// metaOf returns the Meta of a noun.
func metaOf(noun any) *state.Meta {
	switch n := noun.(type) {
	case *state.Project:
		return &n.Meta
	case *state.Member:
		return &n.Meta
	case *state.Group:
		return &n.Meta
	case *state.Setting:
		return &n.Meta
	case *state.Certificate:
		return &n.Meta
	case *state.Token:
		return &n.Meta
	case *state.Profile:
		return &n.Meta
	case *state.Instance:
		return &n.Meta
	case *state.Snapshot:
		return &n.Meta
	case *state.Image:
		return &n.Meta
	case *state.ImageAlias:
		return &n.Meta
	case *state.Network:
		return &n.Meta
	case *state.Pool:
		return &n.Meta
	case *state.Volume:
		return &n.Meta
	case *state.Intent:
		return &n.Meta
	}
	panic(fmt.Sprintf("%T is no noun", noun))
}
