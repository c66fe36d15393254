package stream

import (
	"encoding/binary"
	"strings"
)

// IDs turns the ids that the source's files show into those that the container
// sees, where the files are read through the container's own mount. nil leaves
// them.
type IDs struct {
	UID, GID func(uint32) uint32
}

// apply changes the owner of e, and the ids in its attributes.
func (i *IDs) apply(e *Entry) {
	if i == nil {
		return
	}
	e.UID, e.GID = i.UID(e.UID), i.GID(e.GID)
	for name, value := range e.Attrs {
		switch {
		case strings.HasPrefix(name, "system.posix_acl_"):
			e.Attrs[name] = i.acl(value)
		case name == "security.capability":
			e.Attrs[name] = i.capability(value)
		}
	}
}

// acl is the access list with other ids, in the form of
// linux/posix_acl_xattr.h: a version of four bytes, then entries of tag, rights
// and id.
func (i *IDs) acl(value string) string {
	const user, group = 0x02, 0x08
	b := []byte(value)
	for at := 4; at+8 <= len(b); at += 8 {
		id := b[at+4 : at+8]
		switch binary.LittleEndian.Uint16(b[at:]) {
		case user:
			binary.LittleEndian.PutUint32(id, i.UID(binary.LittleEndian.Uint32(id)))
		case group:
			binary.LittleEndian.PutUint32(id, i.GID(binary.LittleEndian.Uint32(id)))
		}
	}
	return string(b)
}

// capability is the file capability as its own root sees it, in the forms of
// linux/capability.h: the third names the root, the second means root 0.
func (i *IDs) capability(value string) string {
	const size, revision = 24, 3
	b := []byte(value)
	if len(b) != size || b[revision] != 3 {
		return value
	}
	root := i.UID(binary.LittleEndian.Uint32(b[size-4:]))
	if root != 0 {
		binary.LittleEndian.PutUint32(b[size-4:], root)
		return string(b)
	}
	b[revision] = 2
	return string(b[:size-4])
}
