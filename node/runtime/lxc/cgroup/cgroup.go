// Package cgroup knows the control groups of one machine: where each controller
// is (version 1, version 2 or both side by side), and how a container's groups
// are limited, frozen, measured and removed there.
//
// It makes no groups (liblxc does) and asks nobody but the kernel's files.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	// Mount is where it is mounted.
	Mount string
	// V2 tells the unified hierarchy.
	V2 bool
	// Controllers are the names of those that act here; "name=systemd" is one.
	Controllers []string
	// Base is the group, below Mount, under which the machine's containers are:
	// that of the first process.
	Base string
}

// Host is the set of hierarchies of a machine.
type Host struct{ Hierarchies []Hierarchy }

// Detect reads the machine's hierarchies from its own files.
func Detect() (*Host, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return nil, err
	}
	return Parse(string(mounts), string(groups), os.ReadFile)
}

// Parse reads the hierarchies from the text of /proc/self/mountinfo and
// /proc/1/cgroup (proc(5), cgroups(7)); readFile reads a group's files.
func Parse(mountinfo, initGroups string, readFile func(string) ([]byte, error)) (*Host, error) {
	bases := map[string]string{}
	for line := range strings.Lines(initGroups) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			// systemd keeps itself in a leaf of its own; containers are beside it.
			bases[parts[1]] = strings.TrimSuffix(parts[2], "/init.scope")
		}
	}
	host := &Host{}
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		h, ok := parseMount(line, readFile)
		key := strings.Join(h.Controllers, ",")
		if h.V2 {
			key = ""
		}
		base, known := bases[key]
		if !ok || !known || seen[key] {
			continue
		}
		seen[key] = true
		h.Base = path.Join("/", base)
		host.Hierarchies = append(host.Hierarchies, h)
	}
	if len(host.Hierarchies) == 0 {
		return nil, errors.New("no control groups are mounted (at /sys/fs/cgroup)")
	}
	return host, nil
}

// parseMount reads one line of mountinfo; false if it is not a cgroup mount.
func parseMount(line string, readFile func(string) ([]byte, error)) (Hierarchy, bool) {
	before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 5 || len(rest) < 3 {
		return Hierarchy{}, false
	}
	h := Hierarchy{Mount: fields[4]}
	switch rest[0] {
	case "cgroup2":
		h.V2 = true
		if text, err := readFile(filepath.Join(h.Mount, "cgroup.controllers")); err == nil {
			h.Controllers = strings.Fields(string(text))
		}
		return h, true
	case "cgroup":
		for option := range strings.SplitSeq(rest[2], ",") {
			switch option {
			case "rw", "ro", "relatime", "xattr", "noprefix", "clone_children", "cpuset_v2_mode":
			default:
				if !strings.HasPrefix(option, "release_agent=") {
					h.Controllers = append(h.Controllers, option)
				}
			}
		}
		return h, len(h.Controllers) > 0
	}
	return Hierarchy{}, false
}

// find returns the hierarchy in which a controller acts.
func (h *Host) find(controller string) (Hierarchy, bool) {
	for _, hierarchy := range h.Hierarchies {
		if slices.Contains(hierarchy.Controllers, controller) {
			return hierarchy, true
		}
	}
	return Hierarchy{}, false
}

// Layout is "unified" (version 2 alone), "hybrid" or "legacy".
func (h *Host) Layout() string {
	v1, v2 := false, false
	for _, hierarchy := range h.Hierarchies {
		v1, v2 = v1 || !hierarchy.V2, v2 || hierarchy.V2
	}
	switch {
	case v1 && v2:
		return "hybrid"
	case v2:
		return "unified"
	}
	return "legacy"
}

// Group is a group of the same name in every hierarchy.
type Group struct {
	host *Host
	// name is relative to each hierarchy's base.
	name string
}

// Group returns the group of that name, whether or not it exists.
func (h *Host) Group(name string) Group { return Group{host: h, name: name} }

// Below returns a group inside this one.
func (g Group) Below(name string) Group { return Group{host: g.host, name: path.Join(g.name, name)} }

func (g Group) dir(h Hierarchy) string { return filepath.Join(h.Mount, h.Base, g.name) }

// file returns the path of a controller's file; false without the controller.
func (g Group) file(controller, name string) (string, bool) {
	h, ok := g.host.find(controller)
	if !ok {
		return "", false
	}
	return filepath.Join(g.dir(h), name), true
}

// Children returns the names of the groups directly inside, in any hierarchy.
func (g Group) Children() []string {
	var names []string
	for _, h := range g.host.Hierarchies {
		entries, err := os.ReadDir(g.dir(h))
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if entry.IsDir() && !slices.Contains(names, entry.Name()) {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

// Exists says whether the group is there in any hierarchy.
func (g Group) Exists() bool {
	return slices.ContainsFunc(g.host.Hierarchies, func(h Hierarchy) bool {
		_, err := os.Stat(g.dir(h))
		return err == nil
	})
}

// Processes returns the processes in the group and below it.
func (g Group) Processes() ([]int, error) {
	var found []int
	for _, h := range g.host.Hierarchies {
		err := filepath.WalkDir(g.dir(h), func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if entry.Name() != "cgroup.procs" {
				return nil
			}
			pids, err := readNumbers(path)
			for _, pid := range pids {
				if !slices.Contains(found, pid) {
					found = append(found, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// ignoreGone drops the error of a group that went away while it was looked at.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || isGone(err) {
		return nil
	}
	return err
}

func readNumbers(path string) ([]int, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var numbers []int
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, lines.Err()
}

// Remove removes the group and all below it. Groups with processes stay, and are
// the error.
func (g Group) Remove() error {
	var errs []error
	for _, h := range g.host.Hierarchies {
		errs = append(errs, removeTree(g.dir(h)))
	}
	return errors.Join(errs...)
}

// Prune removes the group if nothing is in it and nothing below it.
func (g Group) Prune() {
	for _, h := range g.host.Hierarchies {
		// What is in use stays; the kernel says so.
		_ = os.Remove(g.dir(h))
	}
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return ignoreGone(os.Remove(dir))
}

// read returns the trimmed content of a controller's file.
func (g Group) read(controller, name string) (string, error) {
	file, ok := g.file(controller, name)
	if !ok {
		return "", fmt.Errorf("this machine has no %s controller: %w", controller, os.ErrNotExist)
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}

// write writes to a controller's file.
func (g Group) write(controller, name, value string) error {
	path, ok := g.file(controller, name)
	if !ok {
		return fmt.Errorf("this machine has no %s controller: %w", controller, os.ErrNotExist)
	}
	return writeFile(path, value)
}

// writeFile writes to a file that exists, in one call: the kernel takes each
// write as a whole.
func writeFile(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, value)
	return errors.Join(err, file.Close())
}
