package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster/state"
)

// DebianSpec says what image to build with debootstrap.
type DebianSpec struct {
	// Suite is Debian's name of the release: bookworm, trixie … It must be one
	// that this machine's debootstrap knows.
	Suite string
	// Mirror is where the packages come from; empty for debootstrap's own.
	Mirror string
	// Packages are installed besides those that make a system container boot and
	// find its network.
	Packages []string
	// OutDir is where the image goes; it must exist, and allow device nodes and
	// programs (debootstrap runs in it).
	OutDir string
	// Compression is Gzip when empty.
	Compression Compression
	// CreatedAt is the image's creation date.
	CreatedAt time.Time
	// Progress is told what debootstrap is doing, a line at a time; it may be nil.
	Progress func(line string)
}

// debianPackages make a container of Debian's smallest variant boot and get its
// address by DHCP.
var debianPackages = []string{"systemd-sysv", "dbus", "ifupdown", "isc-dhcp-client", "iproute2", "netbase", "ca-certificates"}

// debianFiles are written over what debootstrap leaves. It copies the machine's
// own name and resolvers, which are nobody else's.
var debianFiles = map[string]string{
	"etc/network/interfaces": "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n",
	"etc/hostname":           "debian\n",
	"etc/resolv.conf":        "",
	// systemd makes a number of its own for each container that starts with none.
	"etc/machine-id": "",
}

// debianCaches hold what apt can get again.
var debianCaches = []string{"var/cache/apt/archives", "var/lib/apt/lists", "var/log"}

var (
	suiteName     = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	packageName   = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	mirrorAddress = regexp.MustCompile(`^(https?|file|ftp|ssh|copy):/\S+$`)
)

// BuildDebian makes a system container image of a Debian release with the program
// debootstrap. It needs root, a mirror of Debian's packages, about 600 MB of room
// in OutDir, and takes a minute or two. On failure nothing is left.
func BuildDebian(ctx context.Context, spec DebianSpec) (Built, error) {
	switch {
	case !suiteName.MatchString(spec.Suite):
		return Built{}, state.Errorf(state.ErrInvalid, "%q is no name of a Debian release: use bookworm, trixie or the like", spec.Suite)
	case spec.Mirror != "" && !mirrorAddress.MatchString(spec.Mirror):
		return Built{}, state.Errorf(state.ErrInvalid, "mirror %q: want an address such as http://deb.debian.org/debian", spec.Mirror)
	case os.Geteuid() != 0:
		return Built{}, state.Errorf(state.ErrInvalid, "debootstrap makes files of many owners: run this as root")
	}
	for _, name := range spec.Packages {
		if !packageName.MatchString(name) {
			return Built{}, state.Errorf(state.ErrInvalid, "%q is no name of a Debian package", name)
		}
	}
	program, err := exec.LookPath("debootstrap")
	if err != nil {
		return Built{}, state.Errorf(state.ErrInvalid, "the program debootstrap is not installed: \"apt-get install debootstrap\"")
	}
	work, err := os.MkdirTemp(spec.OutDir, ".debian-")
	if err != nil {
		return Built{}, err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "rootfs")
	if err := debootstrap(ctx, program, tree, spec); err != nil {
		return Built{}, noRoom(fmt.Errorf("build an image of Debian %s: %w", spec.Suite, err))
	}
	if err := neutralize(tree); err != nil {
		return Built{}, fmt.Errorf("build an image of Debian %s: %w", spec.Suite, err)
	}
	if spec.Progress != nil {
		spec.Progress("Packing the image")
	}
	built, err := packDebian(ctx, work, tree, spec)
	if err != nil {
		return Built{}, noRoom(fmt.Errorf("build an image of Debian %s: %w", spec.Suite, err))
	}
	return built, nil
}

// debootstrap fills tree. What the program says on its way goes to spec.Progress;
// its last lines explain a failure.
func debootstrap(ctx context.Context, program, tree string, spec DebianSpec) error {
	packages := strings.Join(slices.Concat(debianPackages, spec.Packages), ",")
	args := []string{"--variant=minbase", "--include=" + packages, spec.Suite, tree}
	if spec.Mirror != "" {
		args = append(args, spec.Mirror)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(programEnv(), "DEBIAN_FRONTEND=noninteractive")
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "TMPDIR"} {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	_ = in.Close() // the program has its own
	if err != nil {
		return fmt.Errorf("start debootstrap: %w", err)
	}
	var complaint string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		if text, found := strings.CutPrefix(line, "E: "); found || complaint == "" {
			complaint = text
		}
		if text, found := strings.CutPrefix(line, "I: "); found && spec.Progress != nil {
			spec.Progress(text)
		}
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return state.Errorf(state.ErrInvalid, "debootstrap: %w: %s", err, complaint)
	}
	return nil
}

// neutralize takes from a new tree what belongs to the machine that made it.
func neutralize(tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, text := range debianFiles {
		// Never through a link: resolv.conf may be one.
		if err := root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, name := range debianCaches {
		if err := removeFiles(root, name); err != nil {
			return err
		}
	}
	return nil
}

// removeFiles removes the files below a directory and keeps the directories,
// which some programs miss when they are gone.
func removeFiles(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	_ = dir.Close() // only read
	for _, entry := range entries {
		below := filepath.Join(name, entry.Name())
		if entry.IsDir() {
			err = errors.Join(err, removeFiles(root, below))
		} else {
			err = errors.Join(err, root.Remove(below))
		}
	}
	return err
}

// packDebian packs the tree as a unified image.
func packDebian(ctx context.Context, work, tree string, spec DebianSpec) (built Built, err error) {
	version := spec.Suite
	if text, err := os.ReadFile(filepath.Join(tree, "etc/debian_version")); err == nil {
		version = strings.TrimSpace(string(text))
	}
	architecture, err := debianArchitecture(ctx, tree)
	if err != nil {
		return Built{}, err
	}
	when := []Trigger{TriggerCreate, TriggerCopy, TriggerRename}
	metadata := Metadata{
		Architecture: architecture, CreationDate: spec.CreatedAt.Unix(),
		Properties: map[string]string{
			"architecture": architecture, "os": "debian", "release": spec.Suite, "version": version,
			"description": "Debian " + version + " (" + spec.Suite + ") " + architecture, "name": "debian-" + spec.Suite,
		},
		Templates: map[string]Template{
			"/etc/hostname": {When: when, Template: "hostname.tpl"},
			"/etc/hosts":    {When: when, Template: "hosts.tpl"},
		},
	}
	encoded, err := metadata.Encode()
	if err != nil {
		return Built{}, err
	}
	templates := filepath.Join(work, "templates")
	if err := os.Mkdir(templates, 0o755); err != nil {
		return Built{}, err
	}
	for name, text := range nameTemplates {
		if err := os.WriteFile(filepath.Join(templates, name), []byte(text), 0o644); err != nil {
			return Built{}, err
		}
	}
	temporary := filepath.Join(work, "image")
	f, err := os.Create(temporary)
	if err != nil {
		return Built{}, err
	}
	defer f.Close()
	hash := sha256.New()
	packed, err := compress(ctx, io.MultiWriter(f, hash), spec.Compression)
	if err != nil {
		return Built{}, err
	}
	p := &packer{
		ctx: ctx, archive: tar.NewWriter(packed), links: map[inode]string{}, buffer: make([]byte, chunkSize),
		spec: PublishSpec{RootFS: tree, Metadata: metadata, TemplatesDir: templates},
	}
	err = p.pack(encoded)
	if closeErr := packed.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return Built{}, err
	}
	if built.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return Built{}, err
	}
	if err := f.Close(); err != nil {
		return Built{}, err
	}
	built.Fingerprint = hex.EncodeToString(hash.Sum(nil))
	built.Unified = filepath.Join(spec.OutDir, "debian-"+spec.Suite+spec.Compression.ending())
	return built, os.Rename(temporary, built.Unified)
}

// debianArchitecture asks the new system's dpkg what it is built for. The tree was
// made by debootstrap on this machine, which has run its programs already.
func debianArchitecture(ctx context.Context, tree string) (string, error) {
	text, err := os.ReadFile(filepath.Join(tree, "var/lib/dpkg/arch"))
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		cmd := exec.CommandContext(ctx, "chroot", tree, "dpkg", "--print-architecture")
		cmd.Env = programEnv()
		if text, err = cmd.Output(); err != nil {
			return "", fmt.Errorf("ask the new system for its architecture: %w", err)
		}
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return KernelArchitecture(name), nil
}
