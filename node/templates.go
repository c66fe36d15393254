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
		for _, file := range files {
			if err := n.writeTemplate(inst, mounted.RootFS, file); err != nil {
				return fmt.Errorf("write template %s: %w", file.Path, err)
			}
		}
	}
	return nil
}

// writeTemplate writes one file below the root file system. os.Root keeps it
// there whatever symbolic links the container has made.
func (n *Node) writeTemplate(inst Instance, rootfs string, file image.Rendered) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	name := strings.TrimPrefix(file.Path, "/")
	_, err = root.Lstat(name)
	exists := err == nil
	if exists && file.CreateOnly {
		return nil
	}
	owner := 0
	if ids := n.ids(inst); ids != nil {
		owner = int(ids.Host)
	}
	if err := makeParents(root, path.Dir(name), owner); err != nil {
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
	if !exists {
		if err := out.Chown(owner, owner); err != nil {
			out.Close()
			return err
		}
	}
	return out.Close()
}

func makeParents(root *os.Root, dir string, owner int) error {
	if dir == "." || dir == "/" {
		return nil
	}
	if _, err := root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeParents(root, path.Dir(dir), owner); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chown(dir, owner, owner)
}
