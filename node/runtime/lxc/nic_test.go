package lxc_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// Interfaces of every kind, from the start and later, with addresses; physical
// ones come back.
func TestInterfaces(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	br := bridge(t)
	// One end of a pair stands for a physical interface.
	card := func(name string) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostName()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			link, err := netlink.LinkByName(name)
			if err != nil {
				t.Errorf("interface %s has not come back: %v", name, err)
				return
			}
			if err := netlink.LinkDel(link); err != nil {
				t.Error(err)
			}
		})
	}
	parent, phys := hostName(), hostName()
	card(parent)
	card(phys)
	if err := netlink.LinkSetUp(mustLink(t, parent)); err != nil {
		t.Fatal(err)
	}
	nics := []runtime.NIC{
		{Name: "eth0", Kind: runtime.NICVeth, Parent: br, HostName: hostName(), HWAddr: "00:16:3e:00:00:01", Addresses: []string{"10.99.0.2/24", "fd00:99::2/64"}},
		{Name: "eth1", Kind: runtime.NICVeth, HostName: hostName(), HostAddresses: []string{"10.98.0.1/32"}, Addresses: []string{"10.98.0.2/24"}},
		{Name: "eth2", Kind: runtime.NICMacvlan, Parent: parent},
		{Name: "eth3", Kind: runtime.NICPhys, Parent: phys, MTU: 1300},
	}
	check := func(when string) {
		t.Helper()
		list, err := r.Interfaces(t.Context(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]runtime.Interface{}
		for _, i := range list {
			found[i.Name] = i
		}
		for _, nic := range nics {
			i, ok := found[nic.Name]
			if !ok || !i.Up || i.HostName != nic.HostName || nic.HWAddr != "" && i.HWAddr != nic.HWAddr || nic.MTU != 0 && i.MTU != nic.MTU {
				t.Errorf("%s: %s is %+v; want %+v", when, nic.Name, i, nic)
			}
			for _, address := range nic.Addresses {
				if !slices.ContainsFunc(i.Addresses, func(a runtime.Address) bool {
					return fmt.Sprintf("%s/%d", a.Address, a.Netmask) == address && a.Scope == "global"
				}) {
					t.Errorf("%s: %s has %+v; want %s", when, nic.Name, i.Addresses, address)
				}
			}
		}
		host, err := net.InterfaceByName(nics[1].HostName)
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := host.Addrs()
		if err != nil || !slices.ContainsFunc(addresses, func(a net.Addr) bool { return a.String() == "10.98.0.1/32" }) {
			t.Errorf("%s: the host's end has %v, %v; want 10.98.0.1/32", when, addresses, err)
		}
	}
	s.NICs = nics
	start(t, r, s)
	check("from the start")
	for _, nic := range nics {
		if err := r.RemoveNIC(t.Context(), "c1", nic.Name); err != nil {
			t.Fatalf("RemoveNIC(%s): %v", nic.Name, err)
		}
	}
	if _, err := net.InterfaceByName(phys); err != nil {
		t.Errorf("the physical interface has not come back: %v", err)
	}
	for _, nic := range nics {
		if err := r.AddNIC(t.Context(), "c1", nic); err != nil {
			t.Fatalf("AddNIC(%s): %v", nic.Name, err)
		}
	}
	check("while it runs")
	if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	taken := runtime.NIC{Name: "eth9", Kind: runtime.NICVeth, HostName: nics[0].HostName}
	if err := r.AddNIC(t.Context(), "c1", taken); !errors.Is(err, state.ErrExists) {
		t.Errorf("AddNIC under a name that the host has: %v; want ErrExists", err)
	}
	if err := r.RemoveNIC(t.Context(), "c1", taken.Name); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("RemoveNIC of one that could not be added: %v; want ErrNotFound", err)
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(phys); err != nil {
		t.Errorf("the physical interface has not come back after the stop: %v", err)
	}
	for _, nic := range nics {
		if _, err := net.InterfaceByName(nic.HostName); nic.HostName != "" && err == nil {
			t.Errorf("the host's end %s is left", nic.HostName)
		}
	}
}

// A physical interface that was added later comes back under its own name when
// the container is stopped.
func TestPhysicalInterfaceComesBack(t *testing.T) {
	r := open(t)
	phys := hostName()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = phys
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostName()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(mustLink(t, phys)); err != nil {
			t.Error(err)
		}
	})
	for name, end := range map[string]func() error{
		"a forced stop": func() error { return r.Stop(t.Context(), "c1", runtime.Stop{Force: true}) },
		"a clean stop":  func() error { return r.Stop(t.Context(), "c1", runtime.Stop{Timeout: 10 * time.Second}) },
		"a restart": func() error {
			if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
				return err
			}
			return r.Stop(t.Context(), "c1", runtime.Stop{Force: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			start(t, r, spec(t, "c1"))
			if err := r.AddNIC(t.Context(), "c1", runtime.NIC{Name: "eth7", Kind: runtime.NICPhys, Parent: phys}); err != nil {
				t.Fatal(err)
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			runtimetest.Eventually(t, func() string {
				if err := r.Cleanup(t.Context(), "c1"); err != nil {
					return err.Error()
				}
				return ""
			})
			if link := mustLink(t, phys); len(link.Attrs().AltNames) > 0 {
				t.Errorf("the interface still has the names %v", link.Attrs().AltNames)
			}
		})
	}
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}
