package clients

import (
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// Networks and nics as people change them with lxc: what is set takes effect, what is
// removed leaves nothing.
func TestLXCNetworks(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	m := lab.Start(t, lab.Options{})
	replace := strings.NewReplacer("$IMAGE", lab.BusyboxFile(t), "$DIR", m.Dir)
	for _, s := range networkSteps {
		s.run = replace.Replace(s.run)
		start := time.Now()
		s.check(t, m)
		t.Logf("%6d ms  %s", time.Since(start).Milliseconds(), s.run)
	}
	if kept := m.Addresses(); len(kept) > 0 {
		t.Errorf("addresses are kept: %v", kept)
	}
}

const address = `ip -4 -o addr show eth0 | sed -n 's/.*inet \([0-9.]*\).*/\1/p'`

var networkSteps = []step{
	{run: "lxc image import $IMAGE --alias busybox", want: `imported`},
	{run: "lxc network create mtn0 ipv4.address=10.233.7.1/24 ipv6.address=none", want: `mtn0 created`},
	// A new network has what was asked for, and nothing else.
	{run: "lxc query /1.0/networks/mtn0 | tr -d ' \\n\\t'", want: `"config":\{"ipv4.address":"10.233.7.1/24","ipv6.address":"none"\}`},
	{run: "lxc launch busybox c1 -n mtn0", want: `c1`},
	{run: "lxc exec c1 -- sh -c \"" + address + "\"", want: `^10\.233\.7\.\d+\n$`, poll: true},
	{run: "lxc config get c1 volatile.eth0.hwaddr > $DIR/mac; lxc exec c1 -- cat /sys/class/net/eth0/ifindex > $DIR/index", want: `^$`},

	// A static address for an instance that runs: the interface stays the one it is, and
	// the next question is answered with the new address.
	{run: "lxc config device set c1 eth0 ipv4.address=10.233.7.50", want: `^$`},
	{run: "test \"$(lxc config get c1 volatile.eth0.hwaddr)\" = \"$(cat $DIR/mac)\" && test \"$(lxc exec c1 -- cat /sys/class/net/eth0/ifindex)\" = \"$(cat $DIR/index)\" && echo same", want: `^same\n$`},
	{run: "lxc exec c1 -- sh -c \"" + address + "\"", want: `^10\.233\.7\.\d+\n$`},
	{run: "lxc restart -f c1 && lxc exec c1 -- sh -c \"for i in 1 2 3 4 5 6 7 8 9 10; do " + address + " | grep . && break; sleep 1; done\"", want: `^10\.233\.7\.50\n$`},
	{run: "lxc network list-leases mtn0", want: `c1.*10\.233\.7\.50.*STATIC`},

	// An empty value removes the key.
	{run: "lxc config device set c1 eth0 hwaddr=00:16:3e:77:00:01", want: `^$`},
	{run: "lxc exec c1 -- cat /sys/class/net/eth0/address", want: `^00:16:3e:77:00:01\n$`},
	{run: "lxc config device unset c1 eth0 hwaddr && lxc query /1.0/instances/c1 | grep -c '\"hwaddr\"'", want: `^0\n$`, fails: true},
	{run: "lxc exec c1 -- cat /sys/class/net/eth0/address | diff - $DIR/mac && echo as before", want: `^as before\n$`},
	{run: "lxc profile device add default eth9 none user.a=b && lxc profile device set default eth9 user.a '' && lxc profile device show default", want: `eth9:\n +type: none\n`},
	{run: "lxc profile device remove default eth9", want: `removed`},

	// A renamed instance takes its address with it; the one of a deleted instance is free.
	{run: "lxc stop -f c1 && lxc move c1 c2 && lxc network list-leases mtn0", want: `c2.*10\.233\.7\.50`},
	{run: "lxc delete c2 && lxc network list-leases mtn0 | grep -c 10.233.7.50", want: `^0\n$`, fails: true},
	{run: "lxc init busybox c3 -n mtn0 && lxc config device set c3 eth0 ipv4.address=10.233.7.50 && lxc start c3", want: ``},
	{run: "lxc exec c3 -- sh -c \"" + address + "\"", want: `^10\.233\.7\.50\n$`, poll: true},

	// A nic that is plugged in beside the profile's of the same name, and out again.
	{run: "lxc launch busybox c4 && lxc exec c4 -- cat /sys/class/net/eth0/address > $DIR/mac4", want: ``},
	{run: "lxc config device add c4 eth0 nic nictype=bridged parent=mtn0", want: `added`},
	{run: "lxc exec c4 -- ip link show eth0", want: `eth0`},
	{run: "lxc config device remove c4 eth0", want: `removed`},
	{run: "lxc exec c4 -- ls /sys/class/net", want: `^eth0\nlo\n$`},
	{run: "lxc network attach mtn0 c4 eth1 && lxc config device add c4 nic1 nic nictype=bridged parent=mtn0 name=eth0", want: `"nic1".*same name`, fails: true},
	{run: "lxc network detach mtn0 c4 eth1 && lxc exec c4 -- ls /sys/class/net", want: `^eth0\nlo\n$`},
	{run: "lxc delete -f c4", want: `^$`},

	// Unset is none; hwaddr takes effect on a network that is there.
	{run: "lxc network set mtn0 bridge.hwaddr=00:16:3e:77:00:99 && cat /sys/class/net/mtn0/address", want: `^00:16:3e:77:00:99\n$`},
	{run: "lxc network unset mtn0 ipv6.address && lxc network get mtn0 ipv6.address", want: `^\n?$`},
	{run: "lxc delete -f c3 && lxc network unset mtn0 ipv4.address && lxc network get mtn0 ipv4.address", want: `^\n?$`},
	{run: "ip -4 -o addr show mtn0 | wc -l", want: `^0\n$`},
	// An interface with addresses is not taken.
	{run: "lxc network create mtn1 ipv4.address=10.233.8.1/24 ipv6.address=none", want: `created`},
	{run: "lxc network set mtn0 bridge.external_interfaces=mtn1", want: `only unconfigured network interfaces can be bridged`, fails: true},
	{run: "lxc network create mtn2 ipv4.address=none ipv6.address=none bridge.external_interfaces=mtn1", want: `only unconfigured network interfaces can be bridged`, fails: true},
	{run: "lxc network show mtn2", want: `not found`, fails: true},
	{run: "lxc network delete mtn1 && lxc network delete mtn0", want: `deleted`},
}
