package lxc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// tryInit is a program that no container has. A trial has come to its end when liblxc
// says that it can't execute it: all before that has worked.
const tryInit = "/.muster-try"

// tryID is the container of the trials for another one. No instance's name has a dot.
func tryID(id string) string { return id + ".try" }

// Try implements runtime.Runtime.
func (r *Runtime) Try(ctx context.Context, spec runtime.Spec) error {
	spec.ID, spec.Init = tryID(spec.ID), []string{tryInit}
	spec.Mounts, spec.Devices, spec.Proxies = nil, nil, nil
	nics := spec.NICs
	spec.NICs = nil
	for _, nic := range nics {
		// What raw.lxc says of an interface has one to be about. It hangs on nothing.
		spec.NICs = append(spec.NICs, runtime.NIC{Kind: runtime.NICVeth, Name: nic.Name, HostName: fmt.Sprintf("mtry%08x", rand.Uint32())})
	}
	if err := r.Check(ctx, spec); err != nil {
		return err
	}
	spec.RawLXC = withoutHooks(spec.RawLXC)
	defer r.locks.lock(spec.ID)()
	if err := r.cleanup(ctx, spec.ID); err != nil {
		return err
	}
	err := r.prepare(spec)
	if err == nil {
		err = r.launch(ctx, spec)
	}
	log, _ := os.ReadFile(r.LogFile(spec.ID, "lxc.log")) // none: liblxc came to nothing
	// It must be taken away even when the caller has given up.
	undo := context.WithoutCancel(ctx)
	left := r.kill(undo, spec.ID)
	left = errors.Join(left, os.RemoveAll(r.run(spec.ID)))
	switch {
	case left != nil:
		return left
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, strings.Contains(string(log), `Failed to exec "`+tryInit+`"`):
		return nil
	}
	return state.Errorf(state.ErrInvalid, "%w", err)
}

// withoutHooks leaves out the programs that raw.lxc has run at a start: they may do
// anything, and a trial is to change nothing.
func withoutHooks(raw string) string {
	var kept strings.Builder
	for line := range strings.Lines(raw) {
		if !strings.HasPrefix(strings.TrimSpace(line), "lxc.hook.") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
