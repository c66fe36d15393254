package storage

import (
	"math"
	"slices"

	"muster/node/storage/mount"
	"muster/node/storage/stream"
	"muster/state"
)

// everyID is the map under which every id is itself.
var everyID = []IDRange{{Size: math.MaxUint32}}

func (m *IDMap) uids() []IDRange {
	if m == nil {
		return everyID
	}
	return m.UIDs
}

func (m *IDMap) gids() []IDRange {
	if m == nil {
		return everyID
	}
	return m.GIDs
}

// same reports whether both maps mean the same.
func (m *IDMap) same(other *IDMap) bool {
	if m == nil || other == nil {
		return m == other
	}
	return slices.Equal(m.UIDs, other.UIDs) && slices.Equal(m.GIDs, other.GIDs)
}

// inside says how to get from the ids of the host to those of the container.
// Ids that the container has not got stay.
func (m *IDMap) inside() *stream.IDs {
	if m == nil {
		return nil
	}
	inverse := func(ranges []IDRange) func(uint32) uint32 {
		return func(id uint32) uint32 {
			for _, r := range ranges {
				if id >= r.Host && uint64(id) < uint64(r.Host)+uint64(r.Size) {
					return r.Container + (id - r.Host)
				}
			}
			return id
		}
	}
	return &stream.IDs{UID: inverse(m.UIDs), GID: inverse(m.GIDs)}
}

// check refuses maps that the kernel would refuse.
func (m *IDMap) check() error {
	if m == nil {
		return nil
	}
	for _, ranges := range [][]IDRange{m.UIDs, m.GIDs} {
		if len(ranges) == 0 {
			return state.Errorf(state.ErrInvalid, "the id map has no range; give both uids and gids at least one")
		}
		for i, r := range ranges {
			if r.Size == 0 || uint64(r.Container)+uint64(r.Size) > math.MaxUint32 || uint64(r.Host)+uint64(r.Size) > math.MaxUint32 {
				return state.Errorf(state.ErrInvalid, "the id map has the impossible range %d:%d:%d (container:host:size)", r.Container, r.Host, r.Size)
			}
			for _, o := range ranges[:i] {
				if overlap(r.Container, o.Container, r.Size, o.Size) || overlap(r.Host, o.Host, r.Size, o.Size) {
					return state.Errorf(state.ErrInvalid, "the id map has ranges that overlap at %d:%d:%d (container:host:size)", r.Container, r.Host, r.Size)
				}
			}
		}
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// translate returns how ids written under the map disk must be shown so that a
// container with the map shown sees them unchanged.
func translate(disk, shown []IDRange) []mount.Mapping {
	var out []mount.Mapping
	for _, d := range disk {
		for _, s := range shown {
			first := max(d.Container, s.Container)
			last := min(uint64(d.Container)+uint64(d.Size), uint64(s.Container)+uint64(s.Size))
			if uint64(first) >= last {
				continue
			}
			out = append(out, mount.Mapping{
				Disk:  d.Host + (first - d.Container),
				Shown: s.Host + (first - s.Container),
				Size:  uint32(last - uint64(first)),
			})
		}
	}
	return out
}

// apply returns what the id is shown as, or 65534 ("nobody") when the
// translation leaves it out, as the kernel does.
func apply(mappings []mount.Mapping, id uint32) uint32 {
	for _, m := range mappings {
		if id >= m.Disk && uint64(id) < uint64(m.Disk)+uint64(m.Size) {
			return m.Shown + (id - m.Disk)
		}
	}
	return 65534
}
