package runtime

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"muster/state"
)

// IDMap maps the users and groups 0 to Size-1 of a container to Host and up on
// the host.
type IDMap struct {
	Host uint32
	Size uint32
}

// minIDMapSize is what an ordinary system needs: 65534 is nobody (systemd.io,
// "Users, Groups, UIDs and GIDs on systemd Systems").
const minIDMapSize = 65536

// DefaultIDMap is used where /etc/subuid and /etc/subgid say nothing of root: a
// range far from what people and services of a host have.
var DefaultIDMap = IDMap{Host: 1_000_000, Size: 1_000_000_000}

// Validate says what is wrong with the map.
func (m IDMap) Validate() error {
	switch {
	case m.Host == 0:
		return state.Errorf(state.ErrInvalid, "an id map can't start at the host's root")
	case m.Size < minIDMapSize:
		return state.Errorf(state.ErrInvalid, "an id map of %d ids is too small: a container needs %d", m.Size, minIDMapSize)
	case uint64(m.Host)+uint64(m.Size) > 1<<32-1:
		return state.Errorf(state.ErrInvalid, "an id map of %d ids from %d ends beyond the last id, %d", m.Size, m.Host, uint32(1<<32-2))
	}
	return nil
}

// DetectIDMap returns the ids that the host sets aside for root's containers
// (subuid(5), subgid(5)), or DefaultIDMap where it sets none aside.
func DetectIDMap() (IDMap, error) {
	var ranges [2][]IDMap
	for i, path := range []string{"/etc/subuid", "/etc/subgid"} {
		file, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return DefaultIDMap, nil
		}
		if err != nil {
			return IDMap{}, err
		}
		ranges[i], err = subordinate(file, "root", "0")
		if err = errors.Join(err, file.Close()); err != nil {
			return IDMap{}, err
		}
	}
	return common(ranges[0], ranges[1]), nil
}

// subordinate returns the ranges that a file in the format of subuid(5) gives to
// any of the names.
func subordinate(file io.Reader, names ...string) ([]IDMap, error) {
	var found []IDMap
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || !slices.Contains(names, fields[0]) {
			continue
		}
		host, err := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || err2 != nil {
			continue
		}
		// The last of the 32-bit numbers means "no id".
		size = min(size, 1<<32-1-host)
		found = append(found, IDMap{Host: uint32(host), Size: uint32(size)})
	}
	return found, lines.Err()
}

// common returns the largest range that is in both lists, or DefaultIDMap when
// none is large enough for a container.
func common(users, groups []IDMap) IDMap {
	var best []IDMap
	for _, u := range users {
		for _, g := range groups {
			from := max(u.Host, g.Host)
			to := min(u.Host+u.Size, g.Host+g.Size)
			if m := (IDMap{Host: from, Size: to - from}); from < to && m.Validate() == nil {
				m.Size = min(m.Size, DefaultIDMap.Size)
				best = append(best, m)
			}
		}
	}
	if len(best) == 0 {
		return DefaultIDMap
	}
	return slices.MaxFunc(best, func(a, b IDMap) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(b.Host, a.Host))
	})
}
