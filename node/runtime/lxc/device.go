package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// Device nodes are made here, in the run directory, and bound into the container:
// what a container's own file systems hold of devices, the kernel does not open.

// nodes is the folder of a container's device nodes.
func (r *Runtime) nodes(id string) string { return filepath.Join(r.run(id), "devices") }

// nodePath is where the node of a device is; its path names it.
func (r *Runtime) nodePath(id string, device runtime.Device) string {
	return filepath.Join(r.nodes(id), fmt.Sprintf("%x", path.Clean(device.Path)))
}

// makeNode makes a device node for the container to be shown.
func (r *Runtime) makeNode(spec runtime.Spec, device runtime.Device) error {
	if err := os.MkdirAll(r.nodes(spec.ID), 0o711); err != nil {
		return err
	}
	node := r.nodePath(spec.ID, device)
	if err := os.Remove(node); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	mode := device.Mode & 0o7777
	if mode == 0 {
		mode = 0o660
	}
	kind := uint32(unix.S_IFCHR)
	if device.Block {
		kind = unix.S_IFBLK
	}
	uid, gid := device.UID, device.GID
	if m := spec.IDMap; m != nil {
		if uid >= m.Size || gid >= m.Size {
			return state.Errorf(state.ErrInvalid, "device %s: user %d, group %d: the container has ids up to %d", device.Path, uid, gid, m.Size-1)
		}
		uid, gid = uid+m.Host, gid+m.Host
	}
	err := unix.Mknod(node, kind|0o600, int(unix.Mkdev(device.Major, device.Minor)))
	if err == nil {
		err = os.Chown(node, int(uid), int(gid))
	}
	if err == nil {
		err = unix.Chmod(node, mode)
	}
	if err != nil {
		return fmt.Errorf("make device %s: %w", device.Path, err)
	}
	return nil
}

// deviceRules are what a container may do with devices, in the words of the
// devices control group.
func deviceRules(spec runtime.Spec) []string {
	rules := []string{
		// Making a node gives no right to the device.
		"c *:* m", "b *:* m",
		"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null zero full random urandom
		"c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", // tty console ptmx pts
		"c 10:229 rwm", "c 10:200 rwm", // fuse tun
	}
	for _, device := range spec.Devices {
		rules = append(rules, deviceRule(device))
	}
	return rules
}

func deviceRule(device runtime.Device) string {
	kind := "c"
	if device.Block {
		kind = "b"
	}
	return fmt.Sprintf("%s %d:%d rwm", kind, device.Major, device.Minor)
}

// addDevice gives a running container a device.
func (r *Runtime) addDevice(ctx context.Context, c *container, spec runtime.Spec, device runtime.Device) error {
	if err := r.makeNode(spec, device); err != nil {
		return err
	}
	if err := r.allow(ctx, c.id, true, device); err != nil {
		return err
	}
	return addMount(c, spec, runtime.Mount{Source: r.nodePath(c.id, device), Path: device.Path})
}

// removeDevice takes a device away. The right to it stays while another node of
// the container stands for the same device.
func (r *Runtime) removeDevice(ctx context.Context, c *container, spec runtime.Spec, device runtime.Device) error {
	err := removeAt(c, device.Path, func() error {
		// The empty file that the node was bound over.
		var stat unix.Stat_t
		if err := unix.Lstat(device.Path, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Size > 0 {
			return nil //nolint:nilerr // The container has something else there now.
		}
		return unix.Unlink(device.Path)
	})
	if err != nil {
		return err
	}
	same := 0
	for _, other := range deviceRules(spec) {
		if other == deviceRule(device) {
			same++
		}
	}
	if same <= 1 {
		if err := r.allow(ctx, c.id, false, device); err != nil {
			return err
		}
	}
	if err := os.Remove(r.nodePath(c.id, device)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// allow changes the rules of a running container.
func (r *Runtime) allow(ctx context.Context, id string, allow bool, device runtime.Device) error {
	rule := deviceRule(device)
	if !allow {
		// Making nodes stays allowed, as it was before.
		rule = rule[:len(rule)-1]
	}
	done, err := r.group(id).Devices(allow, rule)
	if err != nil {
		return fmt.Errorf("change the device rules of container %s: %w", id, err)
	}
	if done {
		return nil
	}
	word := "deny"
	if allow {
		word = "allow"
	}
	h, release, err := startHelper(ctx, r.shim, []string{"device", r.dir, id, word, rule}, [3]*os.File{})
	if err != nil {
		return err
	}
	defer release()
	defer h.giveUp()
	if _, _, err := h.answers.expect("done", 0); err != nil {
		return fmt.Errorf("change the device rules of container %s: %w", id, err)
	}
	return nil
}
