// Package machine reads what a machine is from its kernel's own files: the
// system that runs on it (Read) and its hardware (Resources).
//
// It never guesses: what the kernel does not tell is left empty, and no other
// program is asked.
package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/rpc/rest/api"
)

// Facts are what GET /1.0 tells of the system.
type Facts struct {
	// Kernel is its name ("Linux"), KernelVersion its release.
	Kernel             string
	KernelVersion      string
	KernelArchitecture string
	// Architectures are those that containers may have, the machine's own first.
	Architectures []string
	// OSName and OSVersion are NAME and VERSION_ID of os-release(5).
	OSName    string
	OSVersion string
}

// compatible names what else runs on an architecture.
var compatible = map[string][]string{
	"x86_64": {"i686"},
}

// Read returns the facts. root is "/" but in tests.
func Read(root string) Facts {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // fails for a bad address only
	name, version := release(root)
	arch := unix.ByteSliceToString(uts.Machine[:])
	return Facts{
		Kernel: unix.ByteSliceToString(uts.Sysname[:]), KernelVersion: unix.ByteSliceToString(uts.Release[:]),
		KernelArchitecture: arch, Architectures: append([]string{arch}, compatible[arch]...),
		OSName: name, OSVersion: version,
	}
}

// release reads os-release(5).
func release(root string) (name, version string) {
	text := read(root, "etc/os-release")
	if text == "" {
		text = read(root, "usr/lib/os-release")
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		switch key {
		case "NAME":
			name = strings.Trim(value, "'")
		case "VERSION_ID":
			version = strings.Trim(value, "'")
		}
	}
	return name, version
}

// Resources returns the hardware. root is "/" but in tests.
func Resources(root string) api.Resources {
	return api.Resources{
		CPU:     cpus(root),
		Memory:  memory(root),
		GPU:     gpus(root),
		Network: networks(root),
		Storage: disks(root),
		USB:     usbs(root),
		PCI:     pcis(root),
		System:  system(root),
	}
}

// read returns a small file without the space around it, or "" when there is
// none.
func read(parts ...string) string {
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// number reads a file that holds one decimal number; ok is false when there is
// none.
func number(parts ...string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(read(parts...), 10, 64)
	return n, err == nil
}

// count is number with zero for none.
func count(parts ...string) uint64 {
	n, _ := number(parts...)
	return n
}

// names lists a directory in natural order, so that cpu10 follows cpu9.
func names(parts ...string) []string {
	entries, err := os.ReadDir(filepath.Join(parts...))
	if err != nil {
		return nil
	}
	found := make([]string, len(entries))
	for i, entry := range entries {
		found[i] = entry.Name()
	}
	slices.SortFunc(found, func(a, b string) int {
		if byLength := len(a) - len(b); byLength != 0 && strings.TrimRight(a, digits) == strings.TrimRight(b, digits) {
			return byLength
		}
		return strings.Compare(a, b)
	})
	return found
}

const digits = "0123456789"

// numbered returns the n of name when it is prefix followed by n.
func numbered(name, prefix string) (n uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil
}

// link is the last element of what a symbolic link points to.
func link(parts ...string) string {
	target, err := os.Readlink(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// node is the NUMA node of a device; the kernel's -1 for "none" reads as 0.
func node(device string) uint64 { return count(device, "numa_node") }
