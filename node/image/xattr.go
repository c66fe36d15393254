package image

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The extended attributes that images carry. All others mean something to the
// host only: trusted.overlay.* would steer the host's overlay mounts.
const (
	capability = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

const (
	paxXattr      = "SCHILY.xattr."
	paxACLAccess  = "SCHILY.acl.access"
	paxACLDefault = "SCHILY.acl.default"
	maxXattr      = 64 << 10
)

// carried says whether images keep an extended attribute.
func carried(name string) bool {
	switch name {
	case capability, aclAccess, aclDefault:
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// xattrsOf returns the attributes of an entry that images keep; others are left
// out, as tar leaves out what it cannot set.
func xattrsOf(header *tar.Header) (map[string][]byte, error) {
	var attrs map[string][]byte
	for _, record := range slices.Sorted(maps.Keys(header.PAXRecords)) {
		value := header.PAXRecords[record]
		var name string
		data := []byte(value)
		switch {
		case record == paxACLAccess || record == paxACLDefault:
			name = aclAccess
			if record == paxACLDefault {
				name = aclDefault
			}
			acl, ok := parseACL(value)
			if !ok {
				continue // names users that only the machine of its maker knows
			}
			data = acl
		case strings.HasPrefix(record, paxXattr):
			name = strings.TrimPrefix(record, paxXattr)
		}
		if !carried(name) || name == aclDefault && header.Typeflag != tar.TypeDir {
			continue
		}
		if len(name) > 255 || len(data) > maxXattr || strings.ContainsRune(name, 0) {
			return nil, fmt.Errorf("is too large (%s)", shown(name))
		}
		if err := checkXattr(name, data); err != nil {
			return nil, err
		}
		if attrs == nil {
			attrs = map[string][]byte{}
		}
		attrs[name] = data
	}
	return attrs, nil
}

// checkXattr refuses what the kernel would refuse when the image is unpacked.
func checkXattr(name string, data []byte) error {
	switch name {
	case capability:
		if _, err := readCapability(data); err != nil {
			return err
		}
	case aclAccess, aclDefault:
		if _, err := readACL(data); err != nil {
			return err
		}
	}
	return nil
}

// POSIX ACLs as the kernel keeps them in extended attributes
// (include/uapi/linux/posix_acl_xattr.h): a version, then entries of a tag,
// permissions and an id that only named users and groups have.
const (
	aclVersion   = 2
	aclUserObj   = 0x01
	aclUser      = 0x02
	aclGroupObj  = 0x04
	aclGroup     = 0x08
	aclMask      = 0x10
	aclOther     = 0x20
	aclUndefined = 0xffffffff
)

type aclEntry struct {
	Tag, Perm uint16
	ID        uint32
}

func readACL(data []byte) ([]aclEntry, error) {
	if len(data) < 4 || (len(data)-4)%8 != 0 || binary.LittleEndian.Uint32(data) != aclVersion {
		return nil, errors.New("is no POSIX ACL")
	}
	var entries []aclEntry
	for data = data[4:]; len(data) > 0; data = data[8:] {
		entries = append(entries, aclEntry{
			binary.LittleEndian.Uint16(data), binary.LittleEndian.Uint16(data[2:]), binary.LittleEndian.Uint32(data[4:]),
		})
	}
	return entries, checkACL(entries)
}

// checkACL applies the kernel's own rule: the entries in the order of their
// tags, each unnamed one once, and a mask when there is anything to mask.
func checkACL(entries []aclEntry) error {
	count := map[uint16]int{}
	for i, e := range entries {
		named := e.Tag == aclUser || e.Tag == aclGroup
		if i > 0 && e.Tag < entries[i-1].Tag || e.Perm > 7 || named && e.ID == aclUndefined {
			return errors.New("is no valid POSIX ACL")
		}
		count[e.Tag]++
	}
	masks, named := count[aclMask], count[aclUser]+count[aclGroup]
	if count[aclUserObj] != 1 || count[aclGroupObj] != 1 || count[aclOther] != 1 || masks > 1 || named > 0 && masks == 0 ||
		len(entries) != 3+masks+named {
		return errors.New("is no valid POSIX ACL")
	}
	return nil
}

func writeACL(entries []aclEntry) []byte {
	data := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		data = binary.LittleEndian.AppendUint16(data, e.Tag)
		data = binary.LittleEndian.AppendUint16(data, e.Perm)
		data = binary.LittleEndian.AppendUint32(data, e.ID)
	}
	return data
}

// parseACL reads the text form that tar --acls writes ("user::rwx,group:4:r-x,
// mask::r-x,other::---"). Users and groups must be numbers, or have theirs in a
// fourth field as star writes it.
func parseACL(text string) ([]byte, bool) {
	var entries []aclEntry
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		part, _, _ = strings.Cut(part, "#")
		fields := strings.Split(strings.TrimSpace(part), ":")
		if len(fields) < 3 || len(fields) > 4 {
			return nil, false
		}
		e := aclEntry{ID: aclUndefined}
		for i, bit := range []uint16{4, 2, 1} {
			if i < len(fields[2]) && fields[2][i] == "rwx"[i] {
				e.Perm |= bit
			}
		}
		who := fields[1]
		if len(fields) == 4 {
			who = fields[3]
		}
		tag, known := map[string]uint16{
			"user": aclUserObj, "u": aclUserObj, "group": aclGroupObj, "g": aclGroupObj,
			"mask": aclMask, "m": aclMask, "other": aclOther, "o": aclOther,
		}[fields[0]]
		if !known {
			return nil, false
		}
		e.Tag = tag
		if fields[1] != "" {
			id, err := strconv.ParseUint(who, 10, 32)
			if err != nil || tag != aclUserObj && tag != aclGroupObj {
				return nil, false
			}
			e.ID = uint32(id)
			e.Tag = tag << 1 // the named kind follows the unnamed one
		}
		entries = append(entries, e)
	}
	// The kernel wants them in the order of tags, and of ids within a tag.
	slices.SortStableFunc(entries, func(a, b aclEntry) int {
		if a.Tag != b.Tag {
			return int(a.Tag) - int(b.Tag)
		}
		return int(int64(a.ID) - int64(b.ID))
	})
	return writeACL(entries), len(entries) > 0
}

// File capabilities as the kernel keeps them (include/uapi/linux/capability.h):
// revision 2, and revision 3 with the id of the root user that may use them.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capSize2        = 20
	capSize3        = 24
)

// readCapability returns the id of the root user that capabilities are bound to,
// and 0 for those that are bound to none.
func readCapability(data []byte) (root uint32, err error) {
	if len(data) < 4 {
		return 0, errors.New("is no file capability")
	}
	switch magic := binary.LittleEndian.Uint32(data); {
	case magic&capRevisionMask == capRevision2 && len(data) == capSize2:
		return 0, nil
	case magic&capRevisionMask == capRevision3 && len(data) == capSize3:
		return binary.LittleEndian.Uint32(data[capSize2:]), nil
	}
	return 0, errors.New("is no file capability that this kernel knows")
}

// bindCapability returns data bound to another root user; 0 unbinds them.
func bindCapability(data []byte, root uint32) []byte {
	magic := binary.LittleEndian.Uint32(data)&^uint32(capRevisionMask) | capRevision2
	if root != 0 {
		magic = magic&^uint32(capRevisionMask) | capRevision3
	}
	bound := binary.LittleEndian.AppendUint32(nil, magic)
	bound = append(bound, data[4:capSize2]...)
	if root != 0 {
		bound = binary.LittleEndian.AppendUint32(bound, root)
	}
	return bound
}

// listXattrs returns the names that list fills into its buffer. A file system
// that keeps no attributes has none.
func listXattrs(list func(buf []byte) (int, error)) ([]string, error) {
	buf := make([]byte, 256)
	for {
		n, err := list(buf)
		switch {
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 4*len(buf)) // the kernel ends this at 64 KiB
			continue
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
	}
}

// xattrsAt reads the attributes of an open file that images keep.
func xattrsAt(fd int) (map[string][]byte, error) {
	names, err := listXattrs(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if err != nil {
		return nil, err
	}
	var attrs map[string][]byte
	for _, name := range names {
		if !carried(name) {
			continue
		}
		value := make([]byte, maxXattr)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue // taken away since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("read the extended attribute %s: %w", name, err)
		}
		if attrs == nil {
			attrs = map[string][]byte{}
		}
		attrs[name] = append([]byte(nil), value[:n]...)
	}
	return attrs, nil
}
