package store

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/go-memdb"

	"muster/state"
)

// key joins the parts of an identity so that keys sort by their first part, then
// the second, and so on, and so that whole parts make a prefix. No part holds a
// zero byte.
func key(parts ...string) []byte {
	size := 0
	for _, part := range parts {
		size += len(part) + 1
	}
	joined := make([]byte, 0, size)
	for _, part := range parts {
		joined = append(joined, part...)
		joined = append(joined, 0)
	}
	return joined
}

// index finds objects of type T by one key. A nil key leaves the object out.
// Lookups pass the key itself.
type index[T any] func(*T) []byte

// FromObject implements memdb.SingleIndexer.
func (i index[T]) FromObject(raw any) (bool, []byte, error) {
	k := i(raw.(*T))
	return k != nil, k, nil
}

// FromArgs implements memdb.Indexer.
func (i index[T]) FromArgs(args ...any) ([]byte, error) { return args[0].([]byte), nil }

// PrefixFromArgs implements memdb.PrefixIndexer.
func (i index[T]) PrefixFromArgs(args ...any) ([]byte, error) { return args[0].([]byte), nil }

// multiIndex finds objects of type T by any of several keys.
type multiIndex[T any] func(*T) [][]byte

// FromObject implements memdb.MultiIndexer.
func (i multiIndex[T]) FromObject(raw any) (bool, [][]byte, error) {
	keys := i(raw.(*T))
	return len(keys) > 0, keys, nil
}

// FromArgs implements memdb.Indexer.
func (i multiIndex[T]) FromArgs(args ...any) ([]byte, error) { return args[0].([]byte), nil }

// PrefixFromArgs implements memdb.PrefixIndexer.
func (i multiIndex[T]) PrefixFromArgs(args ...any) ([]byte, error) { return args[0].([]byte), nil }

// The names of indexes. Every table has byID, whose order is the order of lists.
const (
	byID      = "id"
	byMember  = "member"
	byProfile = "profile"
	byTarget  = "target"
	byUUID    = "uuid"
)

func table[T any](id index[T], others map[string]memdb.Indexer) *memdb.TableSchema {
	indexes := map[string]*memdb.IndexSchema{byID: {Name: byID, Unique: true, Indexer: id}}
	for name, indexer := range others {
		indexes[name] = &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: indexer}
	}
	return &memdb.TableSchema{Indexes: indexes}
}

// tables is the View's layout: a table for each kind, its identity and its other
// doors.
func tables() *memdb.DBSchema {
	schema := map[string]*memdb.TableSchema{
		string(KindProject):     table(func(p *state.Project) []byte { return key(p.Name) }, nil),
		string(KindMember):      table(func(m *state.Member) []byte { return key(m.Name) }, map[string]memdb.Indexer{byUUID: index[state.Member](func(m *state.Member) []byte { return key(m.ID) })}),
		string(KindGroup):       table(func(g *state.Group) []byte { return key(g.Name) }, nil),
		string(KindSetting):     table(func(s *state.Setting) []byte { return key(s.Member, s.Key) }, nil),
		string(KindCertificate): table(func(c *state.Certificate) []byte { return key(c.Fingerprint) }, nil),
		string(KindToken):       table(func(t *state.Token) []byte { return key(t.ID) }, nil),
		string(KindProfile):     table(func(p *state.Profile) []byte { return key(p.Project, p.Name) }, nil),
		string(KindInstance): table(func(i *state.Instance) []byte { return key(i.Project, i.Name) }, map[string]memdb.Indexer{
			byMember: index[state.Instance](func(i *state.Instance) []byte { return key(i.Location) }),
			byProfile: multiIndex[state.Instance](func(i *state.Instance) [][]byte {
				keys := make([][]byte, len(i.Profiles))
				for n, profile := range i.Profiles {
					keys[n] = key(i.Project, profile)
				}
				return keys
			}),
		}),
		string(KindSnapshot): table(func(s *state.Snapshot) []byte { return key(s.Project, s.Instance, s.Name) }, nil),
		string(KindImage):    table(func(i *state.Image) []byte { return key(i.Project, i.Fingerprint) }, nil),
		string(KindAlias): table(func(a *state.ImageAlias) []byte { return key(a.Project, a.Name) }, map[string]memdb.Indexer{
			byTarget: index[state.ImageAlias](func(a *state.ImageAlias) []byte { return key(a.Project, a.Target) }),
		}),
		string(KindNetwork): table(func(n *state.Network) []byte { return key(n.Project, n.Name) }, nil),
		string(KindPool):    table(func(p *state.Pool) []byte { return key(p.Name) }, nil),
		string(KindVolume): table(func(v *state.Volume) []byte {
			return key(v.Pool, v.Project, string(v.Type), v.Name, v.Location)
		}, nil),
		string(KindIntent): table(func(i *state.Intent) []byte { return key(i.Subject, i.Project, i.Name) }, map[string]memdb.Indexer{
			byMember: index[state.Intent](func(i *state.Intent) []byte { return key(i.Member) }),
			byUUID:   index[state.Intent](func(i *state.Intent) []byte { return key(i.ID) }),
		}),
	}
	for name, table := range schema {
		table.Name = name
	}
	return &memdb.DBSchema{Tables: schema}
}

// newNoun returns a new, empty object of the kind, as a pointer.
func newNoun(kind Kind) (any, error) {
	switch kind {
	case KindProject:
		return &state.Project{}, nil
	case KindMember:
		return &state.Member{}, nil
	case KindGroup:
		return &state.Group{}, nil
	case KindSetting:
		return &state.Setting{}, nil
	case KindCertificate:
		return &state.Certificate{}, nil
	case KindToken:
		return &state.Token{}, nil
	case KindProfile:
		return &state.Profile{}, nil
	case KindInstance:
		return &state.Instance{}, nil
	case KindSnapshot:
		return &state.Snapshot{}, nil
	case KindImage:
		return &state.Image{}, nil
	case KindAlias:
		return &state.ImageAlias{}, nil
	case KindNetwork:
		return &state.Network{}, nil
	case KindPool:
		return &state.Pool{}, nil
	case KindVolume:
		return &state.Volume{}, nil
	case KindIntent:
		return &state.Intent{}, nil
	}
	return nil, fmt.Errorf("unknown kind of object %q", kind)
}

// kinds lists every kind of object.
var kinds = []Kind{
	KindProject, KindMember, KindGroup, KindSetting, KindCertificate, KindToken, KindProfile, KindInstance, KindSnapshot,
	KindImage, KindAlias, KindNetwork, KindPool, KindVolume, KindIntent,
}

var layout = tables()

// identify returns the key that identifies an object of the kind.
func identify(kind Kind, object any) []byte {
	_, k, err := layout.Tables[string(kind)].Indexes[byID].Indexer.(memdb.SingleIndexer).FromObject(object)
	if err != nil {
		panic(err) // our indexes return none
	}
	return k
}

// renamed reports whether two versions of an object have different identities.
func renamed(kind Kind, before, after any) bool {
	return !bytes.Equal(identify(kind, before), identify(kind, after))
}
