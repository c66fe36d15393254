package lxc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// proxyGrace is how long a proxy may take to close its listeners.
const proxyGrace = 2 * time.Second

// startProxy starts a helper and returns once it listens. It is in a session of
// its own and is nobody's child for long: it ends with the container, not with
// the daemon.
func (r *Runtime) startProxy(ctx context.Context, spec runtime.Spec, proxy runtime.Proxy) error {
	request, err := json.Marshal(wire.ProxyRequest{Run: r.run(spec.ID), Proxy: proxy, IDMap: spec.IDMap})
	if err != nil {
		return err
	}
	input, err := wire.Memfd("request", request)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	h, release, err := startHelper(ctx, r.shim, []string{"proxy", spec.ID}, [3]*os.File{}, input)
	if err != nil {
		return err
	}
	defer release()
	defer func() { _ = h.answers.file.Close() }()
	_, _, err = h.answers.expect("ready", 0)
	if err != nil {
		h.giveUp()
		// The one that matters is not our child.
		file := wire.ProxyFile(r.run(spec.ID), proxy.Name)
		err = errors.Join(err, ctx.Err(), endProxyFile(context.WithoutCancel(ctx), file))
		return state.Errorf(state.ErrConflict, "start proxy %s: %w", proxy.Name, err)
	}
	// The helper has left a copy of itself behind, so this one ends at once.
	return h.cmd.Wait()
}

// Proxies implements runtime.Runtime.
func (r *Runtime) Proxies(ctx context.Context, id string) ([]runtime.Proxy, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	c.close()
	files, err := r.proxyFiles(id)
	if err != nil {
		return nil, err
	}
	var proxies []runtime.Proxy
	for _, file := range files {
		if holder, err := wire.Holder(file); err != nil || holder == 0 {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var request wire.ProxyRequest
		if err := json.Unmarshal(text, &request); err == nil {
			proxies = append(proxies, request.Proxy)
		}
	}
	slices.SortFunc(proxies, func(a, b runtime.Proxy) int { return strings.Compare(a.Name, b.Name) })
	return proxies, nil
}

func (r *Runtime) proxyFiles(id string) ([]string, error) {
	dir := filepath.Join(r.run(id), wire.Proxies)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		files = append(files, filepath.Join(dir, entry.Name()))
	}
	return files, nil
}

// endProxies ends all helpers of a container.
func (r *Runtime) endProxies(ctx context.Context, id string) error {
	files, err := r.proxyFiles(id)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := endProxyFile(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

// endProxy ends one helper.
func (r *Runtime) endProxy(ctx context.Context, id, name string) error {
	return endProxyFile(ctx, wire.ProxyFile(r.run(id), name))
}

// endProxyFile ends the helper that holds the file, and removes the file.
func endProxyFile(ctx context.Context, file string) error {
	holder, err := wire.Holder(file)
	if err != nil {
		return err
	}
	if holder != 0 {
		if err := endHelper(ctx, holder, file); err != nil {
			return fmt.Errorf("end a proxy: %w", err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// endHelper ends the process that holds a file's lock.
func endHelper(ctx context.Context, pid int, file string) error {
	p, err := openProcess(wire.PID{Number: pid})
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = p.close() }()
	// It holds the lock still, so the number was its own.
	if holder, err := wire.Holder(file); err != nil || holder != pid {
		return err
	}
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	if p.waitFor(ctx, proxyGrace) {
		return nil
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.wait(ctx)
}
