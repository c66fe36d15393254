package cgroup

import (
	"io/fs"
	"path/filepath"
)

// Devices changes the device rules of the group and of all below it, since a
// group made earlier does not inherit what its parent is allowed later. False
// when the rules are not in files here (version 2: a program, which only the
// container's monitor can change).
func (g Group) Devices(allow bool, rule string) (bool, error) {
	h, ok := g.host.find("devices")
	if !ok || h.V2 {
		return false, nil
	}
	name := "devices.deny"
	if allow {
		name = "devices.allow"
	}
	err := filepath.WalkDir(g.dir(h), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return ignoreGone(err)
		}
		return ignoreGone(writeFile(filepath.Join(path, name), rule))
	})
	return true, err
}
