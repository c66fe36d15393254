package lxc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Info, error) {
	if err := r.Check(ctx, spec); err != nil {
		return runtime.Info{}, err
	}
	defer r.locks.lock(spec.ID)()
	// Meanwhile all else is prepared.
	var readying sync.WaitGroup
	readying.Go(func() { _ = r.groups.Ready() }) // without it liblxc waits itself
	defer readying.Wait()
	if c, between, err := r.look(spec.ID); err != nil {
		return runtime.Info{}, err
	} else if c != nil || between {
		if c != nil {
			c.close()
		}
		return runtime.Info{}, state.Errorf(state.ErrConflict, "container %s runs already", spec.ID)
	}
	if err := r.cleanup(ctx, spec.ID); err != nil {
		return runtime.Info{}, err
	}
	if err := r.prepare(spec); err != nil {
		return runtime.Info{}, fmt.Errorf("prepare container %s: %w", spec.ID, err)
	}
	if err := r.launch(ctx, spec); err != nil {
		return runtime.Info{}, r.undoStart(ctx, spec.ID, err)
	}
	c, err := r.find(ctx, spec.ID)
	if err != nil {
		return runtime.Info{}, r.undoStart(ctx, spec.ID, err)
	}
	defer c.close()
	err = r.settleNICs(spec)
	for _, proxy := range spec.Proxies {
		if err == nil {
			err = r.startProxy(ctx, spec, proxy)
		}
	}
	if err != nil {
		return runtime.Info{}, r.undoStart(ctx, spec.ID, err)
	}
	r.watch.add(spec.ID)
	return r.info(c), nil
}

// undoStart takes back what a start that failed has done, and returns why it
// failed.
func (r *Runtime) undoStart(ctx context.Context, id string, cause error) error {
	// It must be undone even when the caller has given up.
	ctx = context.WithoutCancel(ctx)
	if err := r.kill(ctx, id); err != nil {
		r.log.Warn("a container that did not start can't be removed", "container", id, "err", err)
	}
	return cause
}

// Check implements runtime.Runtime.
func (r *Runtime) Check(ctx context.Context, spec runtime.Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if _, err := r.groups.Settings(spec.Limits, "0"); err != nil {
		return err
	}
	return r.checkRaw(ctx, spec.RawLXC)
}

// ours are the keys that the runtime can't do without; a raw.lxc line may not
// change them.
var ours = []string{
	"lxc.cgroup.dir", "lxc.cgroup.relative", "lxc.log", "lxc.console", "lxc.rootfs.path", "lxc.idmap",
	"lxc.hook.version", "lxc.hook.post-stop", "lxc.include", "lxc.monitor", "lxc.tty", "lxc.ephemeral",
}

// checkRaw lets liblxc try each line of raw.lxc.
func (r *Runtime) checkRaw(ctx context.Context, raw string) error {
	if strings.TrimSpace(raw) == "" {
		return nil
	}
	for line := range strings.Lines(raw) {
		key, _, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		for _, own := range ours {
			if key == own || strings.HasPrefix(key, own+".") {
				return state.Errorf(state.ErrInvalid, "raw.lxc: %q: %s is not yours to set", strings.TrimSpace(line), own)
			}
		}
	}
	cmd := exec.CommandContext(ctx, r.shim, "check")
	cmd.Stdin = strings.NewReader(raw)
	var complaint, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &complaint, &failure
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("check raw.lxc: %w: %s", err, failure.String())
	}
	if text := strings.TrimSpace(complaint.String()); text != "" {
		return state.Errorf(state.ErrInvalid, "raw.lxc: %s", text)
	}
	return nil
}

// prepare writes the run directory.
func (r *Runtime) prepare(spec runtime.Spec) error {
	run := r.run(spec.ID)
	// The container's root passes through on its way to its device nodes; the
	// files are root's alone.
	if err := os.MkdirAll(run, 0o711); err != nil {
		return err
	}
	for _, name := range []string{wire.Goal, wire.Exit, wire.State, wire.Init} {
		if err := os.Remove(filepath.Join(run, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := r.setGoal(spec.ID, ""); err != nil {
		return err
	}
	// One log back is enough to see why a container did not come up again.
	log := filepath.Join(run, wire.Log)
	if err := os.Rename(log, log+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, nic := range spec.NICs {
		if nic.Kind == runtime.NICPhys {
			if err := markPhys(nic); err != nil {
				return err
			}
		}
	}
	for _, device := range spec.Devices {
		if err := r.makeNode(spec, device); err != nil {
			return err
		}
	}
	if len(spec.Init) > 0 {
		var argv wire.Request
		if err := argv.AddList(spec.Init); err != nil {
			return err
		}
		if err := putFile(filepath.Join(run, wire.Init), argv.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return r.putSpec(spec)
}

// putSpec makes spec what the container has now, and starts with when it reboots.
func (r *Runtime) putSpec(spec runtime.Spec) error {
	cpus := ""
	if count := spec.Limits.CPU.Count; count > 0 {
		var err error
		if cpus, err = r.chooseCPUs(spec.ID, count); err != nil {
			return err
		}
	}
	settings, err := r.groups.Settings(spec.Limits, cpus)
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	run := r.run(spec.ID)
	if policy := seccompPolicy(spec); policy != "" {
		if err := putFile(filepath.Join(run, wire.Seccomp), []byte(policy), 0o600); err != nil {
			return err
		}
	}
	if err := putFile(filepath.Join(run, wire.Config), []byte(r.liblxcConfig(spec, settings)), 0o600); err != nil {
		return err
	}
	return putFile(filepath.Join(run, specFile), text, 0o600)
}

// launch runs the shim, which ends when the container's init runs.
func (r *Runtime) launch(ctx context.Context, spec runtime.Spec) error {
	path, err := r.shimFor(spec)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "start", r.dir, spec.ID)
	cmd.Args[0] = "muster-shim"
	cmd.Dir = "/"
	// Nothing of the daemon's environment stays with the container. The path leads
	// to apparmor_parser and on purpose not to newuidmap, which liblxc would run
	// four times in a container's life and which refuses maps that are in no
	// /etc/subuid; root can write them itself.
	cmd.Env = []string{"PATH=/usr/sbin:/sbin"}
	announced, err := wire.Announce(filepath.Join(r.run(spec.ID), wire.Monitor))
	if err != nil {
		return fmt.Errorf("start container %s: %w", spec.ID, err)
	}
	cmd.ExtraFiles = []*os.File{announced}
	err = cmd.Start()
	// From here on it is the shim's alone.
	_ = announced.Close()
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("start container %s: %w", spec.ID, ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == wire.Busy:
		return state.Errorf(state.ErrConflict, "container %s runs already", spec.ID)
	case errors.As(err, &exit):
		return state.Errorf(state.ErrConflict, "start container %s: %s", spec.ID, r.lastWords(spec.ID, 0))
	}
	return fmt.Errorf("start container %s: %w", spec.ID, err)
}

// lastWords is the first error in liblxc's log after an offset: those after it are
// its consequences.
func (r *Runtime) lastWords(id string, offset int64) string {
	path := r.LogFile(id, wire.Log)
	file, err := os.Open(path)
	if err != nil {
		return "liblxc left no log"
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return "liblxc's log can't be read"
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// lxc NAME TIME ERROR SOURCE - FILE:FUNCTION:LINE - MESSAGE
		_, rest, found := strings.Cut(lines.Text(), " ERROR ")
		// The hook that keeps liblxc from rebooting by itself fails on purpose.
		if !found || strings.Contains(rest, "run_buffer") || strings.Contains(rest, "post-stop") {
			continue
		}
		if parts := strings.SplitN(rest, " - ", 3); len(parts) == 3 {
			return parts[2]
		}
		return rest
	}
	return "liblxc gave no reason; see " + path
}

// shimFor returns the path to run the shim by. A privileged container's root is
// the host's root to the kernel, and a program in it that is a link to
// /proc/self/exe would be the shim itself, open to be written to (CVE-2019-5736);
// what runs there is a sealed copy in memory.
func (r *Runtime) shimFor(spec runtime.Spec) (string, error) {
	if spec.IDMap != nil {
		return r.shim, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed == nil {
		program, err := os.ReadFile(r.shim)
		if err != nil {
			return "", err
		}
		if r.sealed, err = wire.Sealed("muster-shim", program); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), r.sealed.Fd()), nil
}
