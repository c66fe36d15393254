package image

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	// needs mksquashfs of squashfs-tools.
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
// quick halt. Existing files are replaced whole.
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
	work, err := os.MkdirTemp(spec.OutDir, ".busybox-")
	if err != nil {
		return Built{}, fmt.Errorf("build the busybox image: %w", err)
	}
	defer os.RemoveAll(work)
	built, err := buildBusybox(ctx, spec, work)
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

func buildBusybox(ctx context.Context, spec BusyboxSpec, work string) (Built, error) {
	root, templatesDir := filepath.Join(work, "rootfs"), filepath.Join(work, "templates")
	if err := busyboxTree(ctx, spec.BusyboxPath, root); err != nil {
		return Built{}, err
	}
	for name, text := range busyboxTemplates {
		if err := writeFile(filepath.Join(templatesDir, name), text, 0o644); err != nil {
			return Built{}, err
		}
	}
	if err := sameTime(work, spec.CreatedAt); err != nil {
		return Built{}, err
	}
	publish := PublishSpec{
		RootFS: root, TemplatesDir: templatesDir, Compression: spec.Compression,
		Metadata: Metadata{
			Architecture: spec.Architecture, CreationDate: spec.CreatedAt.Unix(),
			Properties: map[string]string{
				"architecture": spec.Architecture, "description": "Busybox " + spec.Architecture, "name": "busybox", "os": "busybox",
			},
			Templates: map[string]Template{
				"/etc/hostname": {When: []Trigger{TriggerCreate, TriggerCopy, TriggerRename}, Template: "hostname.tpl"},
				"/etc/hosts":    {When: []Trigger{TriggerCreate, TriggerCopy, TriggerRename}, Template: "hosts.tpl"},
			},
		},
	}
	return finishBusybox(ctx, spec, publish, work)
}

// busyboxTree makes the root file system.
func busyboxTree(ctx context.Context, program, root string) error {
	for dir, mode := range busyboxDirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(root, dir), mode); err != nil {
			return err
		}
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(root, "bin/busybox"), string(binary), 0o755); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list the applets of %s: %w", program, err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		target := filepath.Join(root, applet)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if _, err := os.Lstat(target); err == nil {
			continue
		}
		if err := os.Symlink("/bin/busybox", target); err != nil {
			return err
		}
	}
	for name, file := range busyboxFiles {
		if err := writeFile(filepath.Join(root, name), file.text, file.mode); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(name, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// sameTime gives everything below dir one time, so that the image does not depend
// on when it is built.
func sameTime(dir string, at time.Time) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return setTime(path, at)
	})
}

// finishBusybox packs the tree as asked and moves the result to its place.
func finishBusybox(ctx context.Context, spec BusyboxSpec, publish PublishSpec, work string) (Built, error) {
	store, err := Open(Config{Dir: filepath.Join(work, "store"), Reserve: -1})
	if err != nil {
		return Built{}, err
	}
	var info Info
	var built Built
	place := func(from, name string) (string, error) {
		to := filepath.Join(spec.OutDir, name)
		return to, os.Rename(from, to)
	}
	if !spec.Split && !spec.Squashfs {
		if info, err = store.Publish(ctx, publish); err != nil {
			return Built{}, err
		}
		built.Unified, err = place(store.path(info.Fingerprint), "busybox"+spec.Compression.ending())
		built.Fingerprint, built.Size = info.Fingerprint, info.Size
		return built, err
	}
	metadata, rootfs := filepath.Join(work, "meta"), filepath.Join(work, "root")
	if err := packTo(ctx, metadata, publish, true); err != nil {
		return Built{}, err
	}
	ending := spec.Compression.ending()
	if spec.Squashfs {
		ending = ".squashfs"
		err = makeSquashfs(ctx, publish.RootFS, rootfs, spec.CreatedAt)
	} else {
		err = packTo(ctx, rootfs, publish, false)
	}
	if err != nil {
		return Built{}, err
	}
	parts := make([]Part, 0, 2)
	for role, name := range map[Role]string{RoleMetadata: metadata, RoleRootFS: rootfs} {
		data, err := os.ReadFile(name)
		if err != nil {
			return Built{}, err
		}
		part := Part{Role: role, Body: bytes.NewReader(data)}
		if role == RoleMetadata {
			parts = append([]Part{part}, parts...)
		} else {
			parts = append(parts, part)
		}
	}
	// Taking it in checks it the way every upload is checked.
	if info, err = store.Import(ctx, ImportSpec{Next: Parts(parts...)}); err != nil {
		return Built{}, err
	}
	built.Fingerprint, built.Size = info.Fingerprint, info.Size
	if built.Metadata, err = place(metadata, "busybox-meta"+spec.Compression.ending()); err != nil {
		return Built{}, err
	}
	built.RootFS, err = place(rootfs, "busybox-rootfs"+ending)
	return built, err
}
