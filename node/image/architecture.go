package image

import (
	"slices"

	"muster/state"
)

// kernelNames are the architectures that containers run on, as uname -m says
// them, each with the names that Debian, Go, Alpine and others have for it, and the
// number that LXD's first clients had (LXD documentation, "Architectures").
var kernelNames = map[string][]string{
	"x86_64":      {"amd64", "x64", "x86-64", "2"},
	"i686":        {"i386", "i486", "i586", "386", "x86", "1"},
	"aarch64":     {"arm64", "armv8", "4"},
	"armv7l":      {"armhf", "armv7", "armhfp", "3"},
	"armv6l":      {"armel", "armv6", "arm"},
	"armv8l":      nil,
	"ppc64le":     {"ppc64el", "powerpc64le", "7"},
	"ppc64":       {"powerpc64", "6"},
	"ppc":         {"powerpc", "5"},
	"s390x":       {"8"},
	"riscv64":     {"12"},
	"riscv32":     {"11"},
	"mips":        {"9"},
	"mips64":      {"mips64el", "mips64le", "10"},
	"loongarch64": {"loong64"},
}

// KernelArchitecture returns the kernel's name for an architecture that may be
// named as another system names it: x86_64 for amd64. A name it does not know
// comes back as it is, and Metadata.Validate refuses it.
func KernelArchitecture(name string) string {
	for kernel, others := range kernelNames {
		if slices.Contains(others, name) {
			return kernel
		}
	}
	return name
}

func checkArchitecture(name string) error {
	if name == "" {
		return state.Errorf(state.ErrInvalid, "image metadata: architecture is missing: want one such as x86_64 or aarch64")
	}
	if _, known := kernelNames[name]; !known {
		return state.Errorf(state.ErrInvalid, "image metadata: unknown architecture %s: want one such as x86_64 or aarch64", shown(name))
	}
	return nil
}
