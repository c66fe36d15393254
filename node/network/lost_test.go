package network

import (
	"context"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A bridge that somebody takes away is missed, and one made in its place has a DHCP server
// that hears it, and the ports that are plugged in again.
func TestABridgeThatIsTakenAwayComesBack(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	network := testNetwork("mt0", "10.77.1.1/24")
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(ctx), "mt0") }()
	if n.Lost("mt0") {
		t.Error("a network that runs is lost")
	}
	port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port"}, PeerName: "inside"}
	if err := netlink.LinkAdd(port); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("mt0")
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !n.Lost("mt0") || n.Running("mt0") {
		t.Error("a network whose bridge is gone is not lost, or runs still")
	}
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	if n.Lost("mt0") || !n.Running("mt0") {
		t.Error("a network that is back is lost, or does not run")
	}
	if err := n.Plug("mt0", "port", "nothing"); err != nil {
		t.Fatal(err)
	}
	bridge, err := netlink.LinkByName("mt0")
	if err != nil {
		t.Fatal(err)
	}
	if plugged, err := netlink.LinkByName("port"); err != nil || plugged.Attrs().MasterIndex != bridge.Attrs().Index {
		t.Errorf("port is %+v, %v; want it in bridge %d", plugged, err, bridge.Attrs().Index)
	}
	if lease := ask4(t, guest(t, "mt0", "00:16:3e:00:00:01")); !strings.Contains(lease, "10.77.1.") {
		t.Errorf("lease from the network that is back: %s", lease)
	}
}
