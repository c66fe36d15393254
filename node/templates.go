package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"muster/node/image"
	"muster/node/runtime/lxc/inside"
	"muster/node/storage"
	"muster/state"
)

// applyTemplates writes the files that the image's templates make at this start.
// It works on the mounted root file system, before anything runs in it.
func (n *Node) applyTemplates(ctx context.Context, inst Instance, mounted storage.Mounted) error {
	metadata, err := image.ReadMetadata(mounted.Dir)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the image's metadata: %w", err)
	}
	if len(metadata.Templates) == 0 {
		return nil
	}
	triggers := []image.Trigger{image.TriggerStart}
	if pending := inst.Config[applyTemplate]; pending != "" {
		triggers = []image.Trigger{image.Trigger(pending), image.TriggerStart}
	}
	for _, trigger := range triggers {
		files, err := image.Render(ctx, image.RenderSpec{
			Trigger: trigger, Metadata: metadata, TemplatesDir: path.Join(mounted.Dir, "templates"),
			Name: inst.Name, Architecture: inst.Architecture,
			Privileged: inst.privileged(), Ephemeral: inst.Ephemeral,
			Config: inst.Config, Devices: inst.Devices,
		})
		if err != nil {
			return err
		}
		if err := n.asRoot(inst, func() error {
			for _, file := range files {
				if err := writeTemplate(mounted.RootFS, file); err != nil {
					return fmt.Errorf("write template %s: %w", file.Path, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// asRoot runs f as the instance's own root, on a thread of its own: what f makes belongs to
// that root. Through a mount that maps ids the machine's root can't make a file at all,
// since it has no id there (EOVERFLOW).
func (n *Node) asRoot(inst Instance, f func() error) error {
	ids := n.ids(inst)
	if ids == nil {
		return f()
	}
	return inside.OnThread(func() error {
		if err := inside.ActAs(ids.Host, ids.Host, true); err != nil {
			return err
		}
		return f()
	})
}

// writeTemplate writes one file below the root file system. os.Root keeps it
// there whatever symbolic links the container has made.
func writeTemplate(rootfs string, file image.Rendered) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	name := strings.TrimPrefix(file.Path, "/")
	if _, err := root.Lstat(name); err == nil && file.CreateOnly {
		return nil
	}
	if err := makeParents(root, path.Dir(name)); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := out.Write(file.Content); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func makeParents(root *os.Root, dir string) error {
	if dir == "." || dir == "/" {
		return nil
	}
	if _, err := root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeParents(root, path.Dir(dir)); err != nil {
		return err
	}
	return root.Mkdir(dir, 0o755)
}
