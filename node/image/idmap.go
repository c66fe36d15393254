package image

import (
	"fmt"
	"maps"

	"muster/state"
)

// IDRange says that the ids Inside … Inside+Size-1 of a container are
// Outside … Outside+Size-1 on disk.
type IDRange struct {
	Inside, Outside, Size uint32
}

// IDMap says how the ids of a tree on disk become those of its container. The
// zero value means that they are the same.
type IDMap struct {
	UIDs, GIDs []IDRange
}

// inside returns the container's id for one on disk.
func inside(ranges []IDRange, id uint32) (uint32, bool) {
	if len(ranges) == 0 {
		return id, true
	}
	for _, r := range ranges {
		if id >= r.Outside && id-r.Outside < r.Size {
			return r.Inside + (id - r.Outside), true
		}
	}
	return 0, false
}

// owner unshifts the owner of a file. An owner that the container has no id for
// is state.ErrConflict: guessing one would publish a file with rights that it
// never had.
func (m IDMap) owner(name string, uid, gid uint32) (int, int, error) {
	insideUID, knownUID := inside(m.UIDs, uid)
	insideGID, knownGID := inside(m.GIDs, gid)
	if !knownUID || !knownGID {
		return 0, 0, state.Errorf(state.ErrConflict, "%s belongs to %d:%d on this member, which is no user of the container: change its owner or remove it, then publish again", shown(name), uid, gid)
	}
	return int(insideUID), int(insideGID), nil
}

// xattrs unshifts the ids inside attributes.
func (m IDMap) xattrs(name string, attrs map[string][]byte) (map[string][]byte, error) {
	if len(m.UIDs) == 0 && len(m.GIDs) == 0 || len(attrs) == 0 {
		return attrs, nil
	}
	unshifted := maps.Clone(attrs)
	for attr, value := range attrs {
		switch attr {
		case capability:
			root, err := readCapability(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s %w", shown(name), attr, err)
			}
			if root == 0 {
				continue
			}
			// Capabilities bound to the container's root are unbound ones inside.
			bound, known := inside(m.UIDs, root)
			if !known {
				return nil, state.Errorf(state.ErrConflict, "%s has file capabilities for the root user %d of this member, which is no user of the container: remove them, then publish again", shown(name), root)
			}
			unshifted[attr] = bindCapability(value, bound)
		case aclAccess, aclDefault:
			entries, err := readACL(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s %w", shown(name), attr, err)
			}
			for i, e := range entries {
				ranges := m.UIDs
				switch e.Tag {
				case aclUser:
				case aclGroup:
					ranges = m.GIDs
				default:
					continue
				}
				id, known := inside(ranges, e.ID)
				if !known {
					return nil, state.Errorf(state.ErrConflict, "%s has an ACL for the id %d of this member, which is no user of the container: remove it, then publish again", shown(name), e.ID)
				}
				entries[i].ID = id
			}
			unshifted[attr] = writeACL(entries)
		}
	}
	return unshifted, nil
}
