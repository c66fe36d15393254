package state

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is how long names of instances and most other things may be, in bytes
// (LXD REST API, "64 chars max").
const maxName = 64

// ValidateInstanceName says whether name can be a new instance's: it becomes a host
// name, so it has the form of one label of RFC 1123, and as in LXD it does not begin with a
// digit. An instance that has such a name already keeps it.
func ValidateInstanceName(name string) error {
	if err := validateHostname("instance name", name); err != nil {
		return err
	}
	if name[0] >= '0' && name[0] <= '9' {
		return Errorf(ErrInvalid, "instance name %q: it begins with a digit; put a letter before it", name)
	}
	return nil
}

// ValidateMemberName says whether name can be a cluster member's.
func ValidateMemberName(name string) error { return validateHostname("member name", name) }

// ValidateGroupName says whether name can be a cluster group's.
func ValidateGroupName(name string) error { return validatePlain("cluster group name", name) }

// ValidateDomainName says whether name can be a failure domain's.
func ValidateDomainName(name string) error { return validatePlain("failure_domain", name) }

func validateHostname(field, name string) error {
	if err := validateLength(field, name, maxName); err != nil {
		return err
	}
	digits := true
	for _, r := range name {
		switch {
		case r >= '0' && r <= '9':
			continue
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '-':
			digits = false
		default:
			return Errorf(ErrInvalid, "%s %q: %q is not allowed; use letters, digits and hyphens", field, name, r)
		}
	}
	switch {
	case digits:
		return Errorf(ErrInvalid, "%s %q: it has only digits; put a letter in it", field, name)
	case name[0] == '-' || name[len(name)-1] == '-':
		return Errorf(ErrInvalid, "%s %q: it begins or ends with a hyphen; take that away", field, name)
	}
	return nil
}

func validateLength(field, name string, most int) error {
	switch {
	case name == "":
		return Errorf(ErrInvalid, "%s is empty: give one", field)
	case len(name) > most:
		return Errorf(ErrInvalid, "%s %.20q… has %d characters: use %d at most", field, name, len(name), most)
	}
	return nil
}

// validatePlain is for names that become parts of paths and URLs.
func validatePlain(field, name string) error {
	if err := validateLength(field, name, maxName); err != nil {
		return err
	}
	if name == "." || name == ".." {
		return Errorf(ErrInvalid, "%s %q is reserved: choose another", field, name)
	}
	for _, r := range name {
		// What is not printable includes blanks other than the plain one, and
		// bytes that are no UTF-8.
		if r <= ' ' || r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune(`/\:,?#&+"'*`, r) {
			return Errorf(ErrInvalid, "%s %q: %q is not allowed; use letters, digits, hyphens, dots and underscores", field, name, r)
		}
	}
	if name[0] == '-' || name[0] == '.' {
		return Errorf(ErrInvalid, "%s %q: it begins with %q; take that away", field, name, name[0])
	}
	return nil
}

// maxSnapshotName is how long the name of a snapshot may be, in bytes: that of a directory.
const maxSnapshotName = 255

// ValidateSnapshotName says whether name can be a snapshot's. It takes what LXD 5.0.2
// takes, such as the time "2026-11-29T06:30:00", but for what could not be shown, or not be
// a directory.
func ValidateSnapshotName(name string) error {
	if err := validateLength("snapshot name", name, maxSnapshotName); err != nil {
		return err
	}
	if name == "." || name == ".." {
		return Errorf(ErrInvalid, "snapshot name %q is reserved: choose another", name)
	}
	for _, r := range name {
		if r <= ' ' || r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune("/?&+", r) {
			return Errorf(ErrInvalid, "snapshot name %q: %q is not allowed; leave out blanks, \"/\", \"?\", \"&\" and \"+\"", name, r)
		}
	}
	return nil
}

// ValidateProfileName says whether name can be a profile's.
func ValidateProfileName(name string) error { return validatePlain("profile name", name) }

// ValidateProjectName says whether name can be a project's.
func ValidateProjectName(name string) error {
	if strings.Contains(name, "_") {
		return Errorf(ErrInvalid, "project name %q: underscores are not allowed; use letters, digits and hyphens", name)
	}
	return validatePlain("project name", name)
}

// ValidatePoolName says whether name can be a storage pool's.
func ValidatePoolName(name string) error { return validatePlain("storage pool name", name) }

// ValidateVolumeName says whether name can be a storage volume's.
func ValidateVolumeName(name string) error { return validatePlain("volume name", name) }

// ValidateDeviceName says whether name can be a device's.
func ValidateDeviceName(name string) error { return validatePlain("device name", name) }

// ValidateAliasName says whether name can be an image alias; those may hold
// slashes ("ubuntu/22.04"), at any place. What proxies and clients would take for steps in
// a path is refused.
func ValidateAliasName(name string) error {
	if err := validateLength("alias name", name, 255); err != nil {
		return err
	}
	wrong := func(r rune) bool {
		return r <= ' ' || r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune(`\:,?#&"'`, r)
	}
	if strings.ContainsFunc(name, wrong) {
		return Errorf(ErrInvalid, "alias name %q: leave out blanks, quotes, \"\\\", \":\", \",\", \"?\", \"#\", \"&\" and what can't be printed", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "." || part == ".." {
			return Errorf(ErrInvalid, "alias name %q: %q is a step in a path; leave it out", name, part)
		}
	}
	if strings.Trim(name, "/") == "" {
		return Errorf(ErrInvalid, "alias name %q: it has only slashes; put a letter in it", name)
	}
	return nil
}

// maxInterface is what the kernel takes for the name of an interface (IFNAMSIZ
// is 16 with its closing zero).
const maxInterface = 15

// ValidateNetworkName says whether name can be a network's: it becomes the name
// of an interface.
func ValidateNetworkName(name string) error { return ValidateInterfaceName("network name", name) }

// ValidateInterfaceName says whether name can be a network interface's; field is
// what the error calls it.
func ValidateInterfaceName(field, name string) error {
	if err := validateLength(field, name, maxInterface); err != nil {
		return err
	}
	if len(name) < 2 && field == "network name" {
		return Errorf(ErrInvalid, "%s %q: use two characters or more", field, name)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r) {
			return Errorf(ErrInvalid, "%s %q: %q is not allowed; use letters, digits, hyphens, dots and underscores", field, name, r)
		}
	}
	switch name {
	case ".", "..", "all", "default", "none", "lo":
		return Errorf(ErrInvalid, "%s %q is reserved: choose another", field, name)
	}
	if name[0] == '-' {
		return Errorf(ErrInvalid, "%s %q: it begins with a hyphen; take that away", field, name)
	}
	return nil
}

// personalities are the architectures that a kernel also runs besides its own.
var personalities = map[string][]string{
	"x86_64": {"i686"}, "aarch64": {"armv7l", "armv8l"}, "ppc64": {"ppc"}, "s390x": nil,
}

// RunsOn reports whether a machine of architecture host runs containers of
// architecture guest. Both are the kernel's names.
func RunsOn(guest, host string) bool {
	if guest == host {
		return true
	}
	return slices.Contains(personalities[host], guest)
}
