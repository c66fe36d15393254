package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// The program that fetches packages is not ours: a script in its place leaves a
// tree as it does, and says what it says.
const fakeDebootstrap = `#!/bin/sh
echo "I: Retrieving InRelease"
[ "$3" = sid ] && { echo "E: No such script"; echo "W: bye"; exit 1; }
echo "$@" >"$(dirname "$0")/arguments"
tree=$4
mkdir -p "$tree/etc" "$tree/dev" "$tree/var/lib/dpkg" "$tree/var/lib/apt/lists/partial" "$tree/var/cache/apt/archives" "$tree/run"
echo amd64 >"$tree/var/lib/dpkg/arch"
echo 12.9 >"$tree/etc/debian_version"
echo builder >"$tree/etc/hostname"
ln -s /run/elsewhere "$tree/etc/resolv.conf"
echo lists >"$tree/var/lib/apt/lists/x"
mknod "$tree/dev/null" c 1 3
`

func TestBuildDebian(t *testing.T) {
	needsRoot(t)
	bin, out := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, "debootstrap"), []byte(fakeDebootstrap), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	var said []string
	spec := DebianSpec{
		Suite: "bookworm", Mirror: "http://127.0.0.1/debian", Packages: []string{"vim"}, OutDir: out, CreatedAt: time.Unix(1_700_000_000, 0),
		Progress: func(line string) { said = append(said, line) },
	}
	built, err := BuildDebian(t.Context(), spec)
	must(t, err)
	if want := []string{"Retrieving InRelease", "Packing the image"}; !cmp.Equal(said, want) {
		t.Errorf("progress %q; want %q", said, want)
	}
	arguments, err := os.ReadFile(filepath.Join(bin, "arguments"))
	must(t, err)
	if text := string(arguments); !strings.HasPrefix(text, "--variant=minbase --include=systemd-sysv,") || !strings.Contains(text, ",vim bookworm ") || !strings.HasSuffix(text, " http://127.0.0.1/debian\n") {
		t.Errorf("debootstrap was given %q", text)
	}
	left, err := os.ReadDir(out)
	must(t, err)
	if len(left) != 1 || left[0].Name() != "debian-bookworm.tar.gz" || built.Unified != filepath.Join(out, "debian-bookworm.tar.gz") {
		t.Errorf("%v is in the directory, %q was returned", left, built.Unified)
	}

	s := openStore(t)
	file, err := os.Open(built.Unified)
	must(t, err)
	defer file.Close()
	info, err := importOf(t.Context(), s, Parts(Part{RoleUnified, file}))
	must(t, err)
	if info.Fingerprint != built.Fingerprint || info.Size != built.Size || info.Architecture != "x86_64" || info.Properties["version"] != "12.9" {
		t.Errorf("imported as %+v; built as %+v", info, built)
	}
	dir := filepath.Join(t.TempDir(), "out")
	must(t, s.Unpack(t.Context(), info.Fingerprint, dir, nil))
	for name, want := range map[string]string{"etc/resolv.conf": "", "etc/machine-id": "", "etc/hostname": "debian\n", "etc/debian_version": "12.9\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, "rootfs", name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"var/lib/apt/lists/x", "dev/null"} {
		if _, err := os.Lstat(filepath.Join(dir, "rootfs", name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is in the image (%v)", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "rootfs", "var/lib/apt/lists/partial")); err != nil {
		t.Error(err)
	}
}

func TestBuildDebianThatFailsLeavesNothing(t *testing.T) {
	needsRoot(t)
	bin := t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, "debootstrap"), []byte(fakeDebootstrap), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for name, tc := range map[string]struct {
		spec DebianSpec
		want string
	}{
		"a release that debootstrap does not know": {DebianSpec{Suite: "sid"}, "No such script"},
		"an option as a release":                   {DebianSpec{Suite: "--help"}, "no name of a Debian release"},
		"a mirror that is no address":              {DebianSpec{Suite: "bookworm", Mirror: "-x"}, "mirror"},
		"an option as a package":                   {DebianSpec{Suite: "bookworm", Packages: []string{"a,--x"}}, "no name of a Debian package"},
	} {
		tc.spec.OutDir = t.TempDir()
		_, err := BuildDebian(t.Context(), tc.spec)
		if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
		if left, err := os.ReadDir(tc.spec.OutDir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left (%v)", name, left, err)
		}
	}
}
