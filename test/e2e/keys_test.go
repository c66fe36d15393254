package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/state"
	"muster/test/lab"
)

// keyEffect is how one key is seen to work on a running instance.
type keyEffect struct {
	// value is set for the key; a key that ends in a dot is set below it, as name says.
	value, name string
	// with are other keys that it needs.
	with []string
	// look is a line for the shell with $PID, the instance's first process, and $C, its
	// name, and want is in what it prints with the key and not without it.
	look, want string
	// elsewhere names the test that looks at it, or says why nothing can be seen.
	elsewhere string
}

// cgroup prints a file of the instance's control group, in version 1 or 2.
func cgroup(v1, v2 string) string {
	return `for g in $(cut -d: -f3 /proc/$PID/cgroup | sort -u); do cat /sys/fs/cgroup/*$g/` + v1 + ` /sys/fs/cgroup$g/` + v2 + ` /sys/fs/cgroup/unified$g/` + v2 + ` 2>/dev/null; done; true`
}

var instanceEffects = map[string]keyEffect{
	"boot.autostart":                 {elsewhere: "TestAutoStartLeavesAloneWhatSomebodyDealtWith"},
	"boot.autostart.delay":           {elsewhere: "TestAutoStartLeavesAloneWhatSomebodyDealtWith"},
	"boot.autostart.priority":        {elsewhere: "TestAutoStartLeavesAloneWhatSomebodyDealtWith"},
	"boot.host_shutdown_timeout":     {elsewhere: "TestHowInstancesStopWithTheirMachine"},
	"boot.stop.priority":             {elsewhere: "TestHowInstancesStopWithTheirMachine"},
	"cloud-init.network-config":      {elsewhere: "templates of images read them, node/image"},
	"cloud-init.user-data":           {elsewhere: "templates of images read them, node/image"},
	"cloud-init.vendor-data":         {elsewhere: "templates of images read them, node/image"},
	"cluster.evacuate":               {elsewhere: "nothing evacuates yet: docs/limits.md"},
	"environment.":                   {name: "FOO", value: "bar baz", look: "lxc exec $C -- env", want: "FOO=bar baz\n"},
	"image.":                         {elsewhere: "told, not acted upon"},
	"limits.cpu":                     {value: "1", look: `grep Cpus_allowed_list /proc/$PID/status | grep -c '[-,]'; true`, want: "0\n"},
	"limits.cpu.allowance":           {value: "25ms/100ms", look: cgroup("cpu.cfs_quota_us", "cpu.max"), want: "25000"},
	"limits.cpu.priority":            {value: "5", look: cgroup("cpu.shares", "cpu.weight"), want: "9"}, // 1019 or 95
	"limits.kernel.":                 {name: "nofile", value: "1234", look: "cat /proc/$PID/limits", want: "1234"},
	"limits.memory":                  {value: "64MiB", look: cgroup("memory.limit_in_bytes", "memory.max"), want: "67108864"},
	"limits.memory.enforce":          {value: "soft", with: []string{"limits.memory=64MiB"}, look: cgroup("memory.soft_limit_in_bytes", "memory.high"), want: "67108864"},
	"limits.memory.swap":             {elsewhere: "node/runtime/lxc/cgroup: kernels without swap accounting can't show it"},
	"limits.memory.swap.priority":    {elsewhere: "node/runtime/lxc/cgroup: kernels without swap accounting can't show it"},
	"limits.processes":               {value: "123", look: cgroup("pids.max", "pids.max"), want: "123"},
	"linux.sysctl.":                  {name: "net.ipv4.ip_default_ttl", value: "77", look: "lxc exec $C -- cat /proc/sys/net/ipv4/ip_default_ttl", want: "77"},
	"raw.lxc":                        {value: "lxc.environment = RAWLXC=yes", look: `tr '\0' '\n' </proc/$PID/environ`, want: "RAWLXC=yes"},
	"scheduler.affinity":             {elsewhere: "scheduler: TestPlace"},
	"scheduler.anti_affinity":        {elsewhere: "scheduler: TestPlace"},
	"scheduler.labels":               {elsewhere: "scheduler: TestPlace"},
	"security.devlxd":                {elsewhere: "only what muster does is taken"},
	"security.idmap.isolated":        {elsewhere: "only what muster does is taken"},
	"security.idmap.size":            {elsewhere: "only what muster does is taken"},
	"security.nesting":               {elsewhere: "node/runtime/lxc: TestNesting"},
	"security.privileged":            {value: "true", look: "cat /proc/$PID/uid_map", want: "4294967295"},
	"security.protection.delete":     {value: "true", look: "lxc stop -f $C; lxc delete $C 2>&1; lxc info $C >/dev/null 2>&1 || lxc launch busybox $C >/dev/null; lxc start $C 2>/dev/null; true", want: "protected"},
	"security.protection.shift":      {elsewhere: "muster never rewrites owners"},
	"security.syscalls.allow":        {elsewhere: "node/runtime/lxc: TestSeccomp"},
	"security.syscalls.deny":         {value: "mkdir", look: "lxc exec $C -- mkdir /tmp/$$ 2>&1; true", want: "denied|not permitted|not implemented"},
	"security.syscalls.deny_compat":  {elsewhere: "node/runtime/lxc: TestSeccomp"},
	"security.syscalls.deny_default": {value: "false", look: "grep Seccomp: /proc/$PID/status", want: "\t0"},
	"snapshots.expiry":               {value: "1d", look: "lxc snapshot $C x; lxc info $C | grep -A3 Snapshots: ; lxc query /1.0/instances/$C/snapshots/x | grep -c 0001-01-01T; lxc delete $C/x", want: "0\n"},
	"snapshots.pattern":              {value: "pat%d", look: "lxc snapshot $C; n=$(lxc query /1.0/instances/$C/snapshots | tr -d '[]\" \\n' | sed 's|.*/||'); echo $n; lxc delete $C/$n", want: "pat0"},
	"user.":                          {elsewhere: "told, not acted upon"},
	"volatile.":                      {elsewhere: "the server's"},
}

// Every key of an instance that is accepted takes effect: at once if it says so, and with
// the next start otherwise; when it is unset the effect goes.
func TestEveryInstanceKeyTakesEffect(t *testing.T) {
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Run("lxc", "launch", "busybox", "c1")
	for _, key := range state.InstanceKeys() {
		effect, known := instanceEffects[key.Name]
		if !known {
			t.Errorf("nobody looks at the effect of config key %q", key.Name)
		}
		if effect.elsewhere != "" || !known {
			continue
		}
		look := func() string {
			return m.Run("bash", "-c", "C=c1; PID=$(lxc info c1 | sed -n 's/^PID: //p'); "+effect.look)
		}
		has := func(out string) bool {
			return slices.ContainsFunc(strings.Split(effect.want, "|"), func(want string) bool { return strings.Contains(out, want) })
		}
		// change sets or unsets keys, and makes them take effect.
		change := func(args ...string) {
			if !key.Live {
				m.Run("lxc", "stop", "-f", "c1")
			}
			m.Run("lxc", append([]string{"config"}, args...)...)
			if !key.Live {
				m.Run("lxc", "start", "c1")
			}
		}
		for _, other := range effect.with {
			change("set", "c1", other)
		}
		if out := look(); has(out) {
			t.Errorf("without %s: %s; want none of %q", key.Name, out, effect.want)
		}
		change("set", "c1", key.Name+effect.name+"="+effect.value)
		if out := look(); !has(out) {
			t.Errorf("%s%s=%s: %s; want %q", key.Name, effect.name, effect.value, out, effect.want)
		}
		change("unset", "c1", key.Name+effect.name)
		if out := look(); has(out) {
			t.Errorf("after %s%s was unset: %s; want none of %q", key.Name, effect.name, out, effect.want)
		}
		for _, other := range effect.with {
			key, _, _ := strings.Cut(other, "=")
			m.Run("lxc", "config", "unset", "c1", key)
		}
	}
}

// A machine that goes down stops what has the higher boot.stop.priority first, and kills
// what does not end within its boot.host_shutdown_timeout.
func TestHowInstancesStopWithTheirMachine(t *testing.T) {
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Run("lxc", "launch", "busybox", "later", "-c", "boot.stop.priority=1")
	m.Run("lxc", "launch", "busybox", "first", "-c", "boot.stop.priority=2", "-c", "boot.host_shutdown_timeout=1")
	// Its init does not hear that it is to end.
	m.Run("bash", "-c", "kill -STOP $(lxc info first | sed -n 's/^PID: //p')")
	events := filepath.Join(t.TempDir(), "events")
	out, err := os.Create(events)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	monitor := m.Command("lxc", "monitor", "--type=lifecycle", "--format=json")
	monitor.Stdout = out
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = monitor.Process.Kill(); _ = monitor.Wait() }()
	read := func() string {
		content, _ := os.ReadFile(events)
		return string(content)
	}
	eventually(t, func() string {
		m.Run("lxc", "config", "set", "later", "user.seen=yes")
		m.Run("lxc", "config", "unset", "later", "user.seen")
		if !strings.Contains(read(), "instance-updated") {
			return "the monitor has not heard of anything yet"
		}
		return ""
	})
	m.Run("musterd", "shutdown")
	if err := m.Exited(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log := m.Log(); !strings.Contains(log, "did not shut down in time and is killed") {
		t.Errorf("nothing is said of the instance that does not end in time:\n%s", log)
	}
	m.Up()
	heard := read()
	stopped := func(name string) int {
		for line := range strings.Lines(heard) {
			if strings.Contains(line, `/1.0/instances/`+name) && (strings.Contains(line, "instance-shutdown") || strings.Contains(line, "instance-stopped")) {
				return strings.Index(heard, line)
			}
		}
		return -1
	}
	if first, later := stopped("first"), stopped("later"); first < 0 || later >= 0 && later < first {
		t.Errorf("first stopped at %d and later at %d of what was heard:\n%s", first, later, heard)
	}
}

// nicEffects are how each option of a nic is seen on a running instance.
var nicEffects = map[string]keyEffect{
	"network":       {elsewhere: "every other row"},
	"nictype":       {elsewhere: "TestLXCNetworks, test/clients"},
	"parent":        {elsewhere: "TestLXCNetworks, test/clients"},
	"name":          {value: "wan0", look: "lxc exec $C -- ls /sys/class/net", want: "wan0\n"},
	"hwaddr":        {value: "00:16:3e:66:00:01", look: "lxc exec $C -- sh -c 'cat /sys/class/net/*/address'", want: "00:16:3e:66:00:01\n"},
	"mtu":           {value: "1400", look: "lxc exec $C -- sh -c 'cat /sys/class/net/*/mtu'", want: "1400\n"},
	"host_name":     {value: "mtveth66", look: "ls /sys/class/net; ip -o link show mtveth66 2>/dev/null; true", want: "mtveth66"},
	"ipv4.address":  {value: "10.236.4.66", look: "lxc network list-leases keys0", want: "10.236.4.66"},
	"ipv6.address":  {value: "fd42:66::66", look: "lxc network list-leases keys0", want: "fd42:66::66"},
	"boot.priority": {elsewhere: "containers don't boot from devices, with LXD neither"},
}

// Every option of a nic takes effect on an instance that runs, and its effect goes when it
// is unset.
func TestEveryOptionOfANICTakesEffect(t *testing.T) {
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Run("lxc", "network", "create", "keys0", "ipv4.address=10.236.4.1/24", "ipv6.address=fd42:66::1/64", "ipv6.dhcp.stateful=true")
	m.Run("lxc", "launch", "busybox", "c1", "-n", "keys0")
	for _, option := range state.DeviceOptions()["nic"] {
		effect, known := nicEffects[option.Name]
		if !known {
			t.Errorf("nobody looks at the effect of option %q of a nic", option.Name)
		}
		if effect.elsewhere != "" || !known {
			continue
		}
		look := func() string { return m.Run("bash", "-c", "C=c1; "+effect.look) }
		if out := look(); strings.Contains(out, effect.want) {
			t.Errorf("without %s: %s; want no %q", option.Name, out, effect.want)
		}
		m.Run("lxc", "config", "device", "set", "c1", "eth0", option.Name+"="+effect.value)
		if out := look(); !strings.Contains(out, effect.want) {
			t.Errorf("%s=%s: %s; want %q", option.Name, effect.value, out, effect.want)
		}
		m.Run("lxc", "config", "device", "unset", "c1", "eth0", option.Name)
		if out := look(); strings.Contains(out, effect.want) {
			t.Errorf("after %s was unset: %s; want no %q", option.Name, out, effect.want)
		}
	}
}

// New instances in a pool with volume.size are limited to that, unless they say otherwise;
// a pool that can't limit any says so.
func TestNewInstancesHaveThePoolsSize(t *testing.T) {
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Run("lxc", "storage", "create", "keys1", "btrfs", "size=400MiB")
	fill := func(name string, mib string) error {
		return m.Command("lxc", "exec", name, "--", "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count="+mib+" 2>/dev/null && sync && rm /root/big").Run()
	}
	m.Run("lxc", "launch", "busybox", "before", "-s", "keys1")
	m.Run("lxc", "storage", "set", "keys1", "volume.size=30MiB")
	m.Run("lxc", "launch", "busybox", "after", "-s", "keys1")
	m.Run("lxc", "launch", "busybox", "own", "-s", "keys1", "-d", "root,size=100MiB")
	for name, want := range map[string]bool{"before": true, "after": false, "own": true} {
		if err := fill(name, "60"); (err == nil) != want {
			t.Errorf("60 MiB in %q: %v; want it to fit: %v", name, err, want)
		}
	}
	plain := m.Command("lxc", "storage", "create", "keys2", "dir", "volume.size=30MiB")
	if out, err := plain.CombinedOutput(); err == nil {
		m.Run("lxc", "storage", "delete", "keys2") // on a file system with project quotas
	} else if !strings.Contains(string(out), "project quota") {
		t.Errorf("a pool that can't limit volumes: %v, %s", err, out)
	}
}
