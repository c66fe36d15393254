package cluster

import (
	"fmt"
	"strings"
	"testing"

	"muster/state"
)

func TestWhatANetworkServes(t *testing.T) {
	network := func(config state.Config) *state.Network {
		return &state.Network{
			Name: "lan0", Config: config,
			Locals: state.Locals{"m2": {Config: state.Config{"volatile.bridge.hwaddr": "00:16:3E:00:00:09"}}},
		}
	}
	v4 := state.Config{"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42::1/64"}
	stateful := state.Config{"ipv6.address": "fd42::1/64", "ipv6.dhcp.stateful": "true"}
	for name, tc := range map[string]struct {
		config        state.Config
		option, value string
		want          string
	}{
		"an address of the subnet":          {v4, "ipv4.address", "10.1.2.50", "<nil>"},
		"one outside":                       {v4, "ipv4.address", "10.1.3.50", "ipv4.address 10.1.3.50: it is not in the subnet 10.1.2.0/24"},
		"the gateway's":                     {v4, "ipv4.address", "10.1.2.1", "the gateway: choose another"},
		"the first":                         {v4, "ipv4.address", "10.1.2.0", "the first and the last of the subnet"},
		"the last":                          {v4, "ipv4.address", "10.1.2.255", "the first and the last of the subnet"},
		"none where the network has none":   {state.Config{}, "ipv4.address", "10.1.2.50", `network "lan0" has no ipv4.address`},
		"none where nothing is handed out":  {state.Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp": "false"}, "ipv4.address", "10.1.2.50", "hands out no addresses"},
		"IPv6 where guests make their own":  {v4, "ipv6.address", "fd42::50", "set its ipv6.dhcp.stateful to true"},
		"IPv6 where it is handed out":       {stateful, "ipv6.address", "fd42::50", "<nil>"},
		"the last of IPv6":                  {stateful, "ipv6.address", "fd42::ffff:ffff:ffff:ffff", "<nil>"},
		"a hardware address":                {v4, "hwaddr", "00:16:3e:00:00:01", "<nil>"},
		"the bridge's on some other member": {v4, "hwaddr", "00:16:3e:00:00:09", `the hardware address of network "lan0" itself`},
	} {
		t.Run(name, func(t *testing.T) {
			got := fmt.Sprint(claim{"lan0", tc.option, canonical(tc.value)}.serves(network(tc.config)))
			if !strings.Contains(got, tc.want) {
				t.Errorf("serves %s %s: %s; want %s", tc.option, tc.value, got, tc.want)
			}
		})
	}
}
