package clients

import (
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// Instances as people use them with lxc where LXD's manners count: names, states,
// restores, moves, limits.
func TestLXCInstances(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	m := lab.Start(t, lab.Options{})
	replace := strings.NewReplacer("$IMAGE", lab.BusyboxFile(t), "$DIR", m.Dir)
	for _, s := range instanceSteps {
		s.run = replace.Replace(s.run)
		start := time.Now()
		s.check(t, m)
		t.Logf("%6d ms  %s", time.Since(start).Milliseconds(), s.run)
	}
}

var instanceSteps = []step{
	{run: "lxc image import $IMAGE --alias busybox", want: `imported`},
	{run: "lxc init busybox 12test", want: `begins with a digit`, fails: true},
	{run: "lxc launch busybox c", want: `c`},

	// States that make no sense now, and the deletion of what runs.
	{run: "lxc start c", want: `already running`, fails: true},
	{run: "lxc delete c", want: `running`, fails: true},
	{run: "lxc query -X DELETE /1.0/instances/c", want: `Instance is running`, fails: true},
	{run: "lxc stop -f c && lxc stop c", want: `already stopped`, fails: true},
	{run: "lxc pause c", want: `not running`, fails: true},

	// Snapshots called after the time.
	{run: "lxc snapshot c 2026-11-29T06:30:00 && lxc info c", want: `2026-11-29T06:30:00`},
	{run: "lxc restore c 2026-11-29T06:30:00", want: `^$`},
	{run: "lxc delete c/2026-11-29T06:30:00", want: `^$`},
	{run: "lxc snapshot c a+b", want: `is not allowed`, fails: true},

	// A restore whose profile and network are gone; the instance goes on.
	{run: "lxc profile create p && lxc network create mti0 ipv4.address=none ipv6.address=none && lxc profile add c p && lxc config device add c eth1 nic network=mti0", want: `eth1 added`},
	{run: "lxc snapshot c s && lxc config device remove c eth1 && lxc profile remove c p && lxc profile delete p && lxc network delete mti0", want: `mti0 deleted`},
	{run: "lxc restore c s", want: `^$`},
	{run: "lxc start c", want: `eth1.*mti0`, fails: true},
	{run: "lxc config device remove c eth1 && lxc start c && lxc list -f csv -c s c", want: `RUNNING`},

	// Configuration that could not start is refused when it is set.
	{run: "lxc config set c raw.lxc nonsense", want: `raw.lxc`, fails: true},
	{run: "lxc config set c linux.sysctl.kernel.panic=5", want: `linux.sysctl.kernel.panic`, fails: true},
	{run: "lxc restart -f c && lxc list -f csv -c s c", want: `RUNNING`},

	// A pushed file is whole or not there.
	{run: "echo x | lxc file push - c/root/f --uid 1700000000", want: `owner 1700000000`, fails: true},
	{run: "lxc exec c -- ls -A /root", want: `^$`},
	// Processors that are not there; root of the machine at the next start.
	{run: "lxc config set c limits.cpu=0-4000 && lxc restart -f c && lxc exec c -- cat /proc/1/status", want: `Cpus_allowed_list:\s+0`},
	{run: "lxc config unset c limits.cpu && lxc config set c security.privileged=true && lxc exec c -- cat /proc/self/uid_map", want: `0\s+[1-9]`},
	{run: "lxc restart -f c && lxc exec c -- cat /proc/self/uid_map", want: `0\s+0`},

	// A move to another pool before the first start keeps what that start is to do.
	{run: "lxc storage create other dir && lxc init busybox m && lxc config get m volatile.apply_template", want: `create\n$`},
	{run: "lxc config get m volatile.eth0.hwaddr > $DIR/mac && lxc move m m2 -s other && lxc config get m2 volatile.apply_template", want: `create\n$`},
	{run: "test \"$(lxc config get m2 volatile.eth0.hwaddr)\" = \"$(cat $DIR/mac)\" && echo same", want: `^same`},
	{run: "lxc start m2 && lxc exec m2 -- hostname", want: `^m2\n`},
	{run: "lxc config get m2 volatile.cloud-init.instance-id > $DIR/id && lxc stop -f m2 && lxc rename m2 m3 && test \"$(lxc config get m3 volatile.cloud-init.instance-id)\" != \"$(cat $DIR/id)\" && echo new", want: `^new`},

	{run: "lxc delete -f c m3 && lxc storage delete other && lxc list -f csv", want: `deleted`},
}
