package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// spec turns the instance into what the runtime starts, and returns the volatile
// keys that belong to this start.
func (n *Node) spec(ctx context.Context, inst Instance, rootfs string) (runtime.Spec, state.Config, error) {
	config := inst.Config
	limits, err := n.limits(config)
	if err != nil {
		return runtime.Spec{}, nil, err
	}
	spec := runtime.Spec{
		ID:           inst.HostName(),
		Hostname:     inst.Name,
		Rootfs:       rootfs,
		IDMap:        n.ids(inst),
		Nesting:      isTrue(config["security.nesting"]),
		Architecture: inst.Architecture,
		Environment:  withPrefix(config, "environment."),
		Limits:       limits,
		Sysctls:      withPrefix(config, "linux.sysctl."),
		Seccomp:      seccompOf(config),
		RawLXC:       config["raw.lxc"],
	}
	volatile, err := n.addDevices(ctx, inst, &spec)
	return spec, volatile, err
}

// withPrefix returns the keys below a prefix, without it.
func withPrefix(config state.Config, prefix string) map[string]string {
	found := map[string]string{}
	for key, value := range config {
		if rest, ok := strings.CutPrefix(key, prefix); ok && value != "" {
			found[rest] = value
		}
	}
	return found
}

func seccompOf(config state.Config) runtime.Seccomp {
	lines := func(key string) []string { return strings.Fields(config[key]) }
	policy := runtime.Seccomp{
		DenyCompat: isTrue(config["security.syscalls.deny_compat"]),
		Deny:       lines("security.syscalls.deny"),
		Allow:      lines("security.syscalls.allow"),
	}
	if value := config["security.syscalls.deny_default"]; value != "" && !isTrue(value) {
		policy.NoDefault = true
	}
	return policy
}

// limits are those of the configuration as this machine can keep them: of the processors
// that limits.cpu names, those that exist here.
func (n *Node) limits(config state.Config) (runtime.Limits, error) {
	limits, err := limitsOf(config)
	if err != nil || limits.CPU.Set == "" {
		return limits, err
	}
	here, missing, err := n.cpus(limits.CPU.Set)
	if err == nil && here == "" {
		err = state.Errorf(state.ErrConflict, "limits.cpu %q: this member has none of these processors (it has %s)", limits.CPU.Set, missing)
	}
	limits.CPU.Set = here
	return limits, err
}

// cpus returns the processors of a set that this machine has, and in words those that it
// has instead; that is empty when it has them all.
func (n *Node) cpus(set string) (here, instead string, err error) {
	all, err := n.cfg.Runtime.CPUs()
	if err != nil {
		return "", "", err
	}
	named, err := state.ParseCPUSet(set)
	if err != nil {
		return "", "", err
	}
	existing := slices.DeleteFunc(slices.Clone(named), func(cpu int) bool { return !slices.Contains(all, cpu) })
	if len(existing) < len(named) {
		instead = state.FormatCPUSet(all)
	}
	return state.FormatCPUSet(existing), instead, nil
}

// Warnings are sentences about what this machine can't do of what the instance is to have,
// and leaves out.
func (n *Node) Warnings(ctx context.Context, inst Instance) []string {
	warnings := n.missingCPUs(inst)
	if pool, volume, err := n.volume(ctx, inst); err == nil && isTrue(inst.Config["security.nesting"]) && pool.Stacks(volume) {
		warnings = append(warnings, fmt.Sprintf(
			"security.nesting: the root of instance %q is an overlay, so overlayfs (Docker, Podman) does not work inside until it is started next with room for a copy of its files", inst.Name))
	}
	return warnings
}

func (n *Node) missingCPUs(inst Instance) []string {
	limits, err := limitsOf(inst.Config)
	if err != nil {
		return nil
	}
	all, err := n.cfg.Runtime.CPUs()
	if err != nil {
		return nil
	}
	if limits.CPU.Count > len(all) {
		return []string{fmt.Sprintf("limits.cpu: member has %d of the %d processors of instance %q", len(all), limits.CPU.Count, inst.Name)}
	}
	if limits.CPU.Set == "" {
		return nil
	}
	here, instead, err := n.cpus(limits.CPU.Set)
	if err != nil || instead == "" {
		return nil
	}
	return []string{fmt.Sprintf("limits.cpu: of the processors %s the member of instance %q has %s alone", limits.CPU.Set, inst.Name, here)}
}

// limitsOf reads the limits.* keys.
func limitsOf(config state.Config) (runtime.Limits, error) {
	var limits runtime.Limits
	if err := cpuLimits(config, &limits.CPU); err != nil {
		return limits, err
	}
	if err := memoryLimits(config, &limits.Memory); err != nil {
		return limits, err
	}
	if value := config["limits.processes"]; value != "" {
		count, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return limits, state.Errorf(state.ErrInvalid, "limits.processes %q: want a number of processes", value)
		}
		limits.Processes = count
	}
	limits.Kernel = withPrefix(config, "limits.kernel.")
	return limits, nil
}

func cpuLimits(config state.Config, limits *runtime.CPULimits) error {
	if value := config["limits.cpu"]; value != "" {
		count, set, err := state.ParseCPULimit(value)
		if err != nil {
			return err
		}
		limits.Count, limits.Set = count, set
	}
	if value := config["limits.cpu.allowance"]; value != "" {
		allowance, err := state.ParseCPUAllowance(value)
		if err != nil {
			return err
		}
		limits.Share = allowance.Percent
		limits.Quota, limits.Period = allowance.Quota.Microseconds(), allowance.Period.Microseconds()
	}
	priority, err := tenth(config, "limits.cpu.priority")
	limits.Priority = priority
	return err
}

func memoryLimits(config state.Config, limits *runtime.MemoryLimits) error {
	if value := config["limits.memory"]; value != "" {
		bytes, err := memoryBytes(value)
		if err != nil {
			return err
		}
		limits.Limit = bytes
	}
	limits.Soft = config["limits.memory.enforce"] == "soft"
	if value := config["limits.memory.swap"]; value != "" && !isTrue(value) {
		limits.NoSwap = true
	}
	priority, err := tenth(config, "limits.memory.swap.priority")
	limits.SwapPriority = priority
	return err
}

// tenth reads a priority from 0 to 10.
func tenth(config state.Config, key string) (*int, error) {
	value := config[key]
	if value == "" {
		return nil, nil
	}
	priority, err := strconv.Atoi(value)
	if err != nil || priority < 0 || priority > 10 {
		return nil, state.Errorf(state.ErrInvalid, "%s %q: want a number from 0 to 10", key, value)
	}
	return &priority, nil
}
