package storage

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/state"
)

// poolKeys are the configuration keys of a pool and the drivers that know them.
var poolKeys = map[string]struct {
	drivers []string
	check   func(value string) error
}{
	"source":                  {[]string{driverOverlay, driverDir, driverBtrfs}, checkSource},
	"size":                    {[]string{driverBtrfs}, checkLoopSize},
	"btrfs.mount_options":     {[]string{driverBtrfs}, checkMountOptions},
	"volume.size":             {[]string{driverOverlay, driverDir, driverBtrfs}, checkSize},
	"rsync.bwlimit":           {[]string{driverOverlay, driverDir, driverBtrfs}, checkSize},
	"volatile.initial_source": {[]string{driverOverlay, driverDir, driverBtrfs}, func(string) error { return nil }},
}

// Validate checks a pool's name, driver and configuration without looking at
// the machine: unknown keys (the error names the nearest known one), sizes,
// paths. Keys that begin with "user." are free.
func Validate(pool state.Pool) error {
	if err := cmp.Or(state.ValidatePoolName(pool.Name), state.ValidatePoolDriver(pool.Driver)); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(pool.Config)) {
		if strings.HasPrefix(key, "user.") {
			continue
		}
		known, ok := poolKeys[key]
		if !ok {
			return state.Errorf(state.ErrInvalid, "storage pool %s: unknown key %.40q%s", pool.Name, key, suggestion(key))
		}
		if !slices.Contains(known.drivers, pool.Driver) {
			return state.Errorf(state.ErrInvalid, "storage pool %s: key %q is not for driver %s but for %s", pool.Name, key, pool.Driver, strings.Join(known.drivers, ", "))
		}
		if value := pool.Config[key]; value != "" {
			if err := known.check(value); err != nil {
				return state.Errorf(state.ErrInvalid, "storage pool %s: %s: %w", pool.Name, key, err)
			}
		}
	}
	return nil
}

func checkSource(value string) error {
	if !filepath.IsAbs(value) {
		return fmt.Errorf("%q is not an absolute path", value)
	}
	if filepath.Clean(value) != value || strings.ContainsAny(value, "\n\x00") {
		return fmt.Errorf("%q is not a plain path; write %q", value, filepath.Clean(value))
	}
	return nil
}

func checkSize(value string) error {
	_, err := state.ParseSize(value)
	return err
}

// minLoop is less than mkfs.btrfs accepts for any geometry, rounded up.
const minLoop = 128 << 20

func checkLoopSize(value string) error {
	size, err := state.ParseSize(value)
	if err != nil {
		return err
	}
	if size < minLoop {
		return fmt.Errorf("%q is too small for btrfs; give at least 128MiB", value)
	}
	return nil
}

// checkMountOptions refuses options that are not for btrfs or that would take
// the pool out of muster's hands.
func checkMountOptions(value string) error {
	_, _, err := parseMountOptions(value)
	return err
}

// mountFlags are the options that the kernel takes as flags (mount(2)).
var mountFlags = map[string]uintptr{
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME, "sync": unix.MS_SYNCHRONOUS,
	"rw": 0, "defaults": 0,
}

// parseMountOptions splits "noatime,compress=zstd" into flags and the rest.
func parseMountOptions(value string) (flags uintptr, data string, err error) {
	var rest []string
	for option := range strings.SplitSeq(value, ",") {
		option = strings.TrimSpace(option)
		key, _, _ := strings.Cut(option, "=")
		flag, known := mountFlags[option]
		switch {
		case option == "":
		case known:
			flags |= flag
		case key == "subvol" || key == "subvolid" || key == "ro" || key == "device":
			return 0, "", fmt.Errorf("option %q cannot be set here", option)
		case strings.ContainsAny(option, " \t\n\\"):
			return 0, "", fmt.Errorf("option %q has a space in it", option)
		default:
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ","), nil
}

// suggestion names the known key that was probably meant, if there is one.
func suggestion(key string) string {
	best, fewest := "", len(key)/3+2
	if len(key) > 100 {
		return ""
	}
	for _, known := range slices.Sorted(maps.Keys(poolKeys)) {
		if d := distance(key, known); d < fewest {
			best, fewest = known, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// distance is the number of letters to add, drop or change between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
