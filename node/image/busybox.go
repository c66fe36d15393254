package image

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/state"
)

// BusyboxSpec says what image to build from a static busybox.
type BusyboxSpec struct {
	// BusyboxPath is a statically linked busybox that this machine can run;
	// empty means /bin/busybox (Debian's package busybox-static).
	BusyboxPath string
	// Architecture is the kernel's name for what BusyboxPath is built for, or
	// empty to take it from the file.
	Architecture string
	// OutDir is where the files go; it must exist.
	OutDir string
	// Compression is Gzip when empty.
	Compression Compression
	// Split makes two files instead of a unified tarball.
	Split bool
	// Squashfs makes the root file system a squashfs; it implies Split and
	// needs sqfstar of squashfs-tools.
	Squashfs bool
	// CreatedAt is the image's creation date and the time of all its files. The
	// zero value means 2026-01-01, so that the same busybox always gives the
	// same image.
	CreatedAt time.Time
}

// Built is an image that BuildBusybox made.
type Built struct {
	Fingerprint string
	// Unified is the path of a unified tarball; empty when the image is split,
	// and then Metadata and RootFS are the two files.
	Unified, Metadata, RootFS string
	// Size is in bytes, of all files.
	Size int64
}

// BuildBusybox makes a small system container image (about 2 MB) whose init is
// busybox: DHCP on eth0 in the background, a shell on the console, a clean and
// quick halt on the signals of a power failure. It needs no root. Existing files
// are replaced whole.
func BuildBusybox(ctx context.Context, spec BusyboxSpec) (Built, error) {
	if spec.BusyboxPath == "" {
		spec.BusyboxPath = "/bin/busybox"
	}
	if spec.Compression == "" {
		spec.Compression = Gzip
	}
	if spec.CreatedAt.IsZero() {
		spec.CreatedAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	architecture, err := staticArchitecture(spec.BusyboxPath)
	if err != nil {
		return Built{}, err
	}
	if spec.Architecture == "" {
		spec.Architecture = architecture
	}
	built, err := buildBusybox(ctx, spec)
	if err != nil {
		return Built{}, fmt.Errorf("build the busybox image: %w", err)
	}
	return built, nil
}

// machines are the kernel's names for what ELF calls the machine.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64", elf.EM_386: "i686", elf.EM_ARM: "armv7l",
	elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_RISCV: "riscv64",
}

// staticArchitecture checks that the program needs no libraries and says what it
// runs on.
func staticArchitecture(program string) (string, error) {
	file, err := elf.Open(program)
	if err != nil {
		return "", state.Errorf(state.ErrInvalid, "%s is no program to make an image of: %w; \"apt-get install busybox-static\"", program, err)
	}
	defer file.Close()
	for _, section := range file.Progs {
		if section.Type == elf.PT_INTERP {
			return "", state.Errorf(state.ErrInvalid, "%s is not statically linked: \"apt-get install busybox-static\"", program)
		}
	}
	name, known := machines[file.Machine]
	if !known {
		return "", state.Errorf(state.ErrInvalid, "%s is built for %v, which muster does not know", program, file.Machine)
	}
	return name, nil
}

// buildBusybox writes the files of the image under temporary names, hashes them
// and then moves them to their places.
func buildBusybox(ctx context.Context, spec BusyboxSpec) (Built, error) {
	var built Built
	rootfs, err := busyboxTree(ctx, spec.BusyboxPath)
	if err != nil {
		return Built{}, err
	}
	metadata, err := busyboxMetadata(spec)
	if err != nil {
		return Built{}, err
	}
	outputs := []output{{path: &built.Unified, name: "busybox" + spec.Compression.ending(), nodes: append(metadata, below("rootfs", rootfs)...)}}
	if spec.Split || spec.Squashfs {
		outputs = []output{
			{path: &built.Metadata, name: "busybox-meta" + spec.Compression.ending(), nodes: metadata},
			{path: &built.RootFS, name: "busybox-rootfs" + spec.Compression.ending(), nodes: rootfs},
		}
		if spec.Squashfs {
			outputs[1].name, outputs[1].squashfs = "busybox-rootfs.squashfs", true
		}
	}
	hash := sha256.New()
	for _, out := range outputs {
		size, err := out.write(ctx, spec, hash)
		if err != nil {
			return Built{}, err
		}
		built.Size += size
	}
	built.Fingerprint = hex.EncodeToString(hash.Sum(nil))
	return built, nil
}

// node is a file, directory or symbolic link of a tree that is made up.
type node struct {
	name    string
	mode    os.FileMode
	content []byte
	link    string
}

func below(dir string, nodes []node) []node {
	moved := slices.Clone(nodes)
	for i := range moved {
		moved[i].name = path.Join(dir, moved[i].name)
	}
	return moved
}

// busyboxMetadata are metadata.yaml and the templates.
func busyboxMetadata(spec BusyboxSpec) ([]node, error) {
	when := []Trigger{TriggerCreate, TriggerCopy, TriggerRename}
	encoded, err := Metadata{
		Architecture: spec.Architecture, CreationDate: spec.CreatedAt.Unix(),
		Properties: map[string]string{
			"architecture": spec.Architecture, "description": "Busybox " + spec.Architecture, "name": "busybox", "os": "busybox",
		},
		Templates: map[string]Template{
			"/etc/hostname": {When: when, Template: "hostname.tpl"},
			"/etc/hosts":    {When: when, Template: "hosts.tpl"},
		},
	}.Encode()
	if err != nil {
		return nil, err
	}
	nodes := []node{{name: "metadata.yaml", mode: 0o644, content: encoded}, {name: "templates", mode: os.ModeDir | 0o755}}
	for _, name := range slices.Sorted(maps.Keys(nameTemplates)) {
		nodes = append(nodes, node{name: "templates/" + name, mode: 0o644, content: []byte(nameTemplates[name])})
	}
	return nodes, nil
}

// busyboxTree is the root file system, sorted by name.
func busyboxTree(ctx context.Context, program string) ([]node, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	tree := map[string]node{".": {mode: os.ModeDir | 0o755}, "bin/busybox": {mode: 0o755, content: binary}}
	for dir, mode := range busyboxDirs {
		tree[dir] = node{mode: os.ModeDir | mode}
	}
	for name, file := range busyboxFiles {
		tree[name] = node{mode: file.mode, content: []byte(file.text)}
	}
	list := exec.CommandContext(ctx, program, "--list-full")
	list.Env = programEnv()
	applets, err := list.Output()
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "%s --list-full: %w: the image needs a busybox that this machine can run", program, err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet, err = cleanName(applet); err != nil {
			return nil, state.Errorf(state.ErrInvalid, "%s --list-full names %s: %w", program, shown(applet), err)
		}
		if _, taken := tree[applet]; !taken {
			tree[applet] = node{mode: os.ModeSymlink | 0o777, link: "/bin/busybox"}
		}
	}
	for name := range maps.Clone(tree) {
		for dir := path.Dir(name); tree[dir].mode == 0; dir = path.Dir(dir) {
			tree[dir] = node{mode: os.ModeDir | 0o755}
		}
	}
	var nodes []node
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		n := tree[name]
		n.name = name
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// output is one file of an image to be.
type output struct {
	path     *string
	name     string
	nodes    []node
	squashfs bool
}

// write makes the file, adds it to hash and says how long it is.
func (o output) write(ctx context.Context, spec BusyboxSpec, hash io.Writer) (int64, error) {
	work, err := os.MkdirTemp(spec.OutDir, ".busybox-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	temporary := filepath.Join(work, o.name)
	if o.squashfs {
		err = o.pour(ctx, temporary, spec.CreatedAt)
	} else {
		err = o.compressed(ctx, temporary, spec)
	}
	if err != nil {
		return 0, noRoom(err)
	}
	f, err := os.Open(temporary)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := io.Copy(hash, f)
	if err != nil {
		return 0, err
	}
	*o.path = filepath.Join(spec.OutDir, o.name)
	return size, cmp.Or(f.Chmod(0o644), os.Rename(temporary, *o.path))
}

func (o output) compressed(ctx context.Context, name string, spec BusyboxSpec) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	compressed, err := compress(ctx, f, spec.Compression)
	if err != nil {
		return err
	}
	return cmp.Or(writeTar(compressed, o.nodes, spec.CreatedAt), compressed.Close(), f.Close())
}

// pour lets sqfstar make a squashfs of a tarball: it takes the owners from
// there, so no tree owned by root must be made first.
func (o output) pour(ctx context.Context, name string, at time.Time) error {
	program, err := exec.LookPath("sqfstar")
	if err != nil {
		return state.Errorf(state.ErrInvalid, "a squashfs needs the program sqfstar, which is not installed: install squashfs-tools, or make a tarball")
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	in, err := pourThrough(ctx, io.Discard, program, "-quiet", "-no-progress", "-processors", "1",
		"-mkfs-time", seconds, "-all-time", seconds, "-root-mode", "755", name)
	if err != nil {
		return err
	}
	return cmp.Or(writeTar(in, o.nodes, at), in.Close())
}

// writeTar writes nodes that all belong to root.
func writeTar(w io.Writer, nodes []node, at time.Time) error {
	archive := tar.NewWriter(w)
	for _, n := range nodes {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: n.name, Mode: int64(n.mode.Perm()), Size: int64(len(n.content)), Linkname: n.link, ModTime: at}
		if n.mode&os.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		switch {
		case n.mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, n.name+"/"
		case n.link != "":
			header.Typeflag = tar.TypeSymlink
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(n.content); err != nil {
			return err
		}
	}
	return archive.Close()
}
