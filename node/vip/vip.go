// Package vip holds an address that moves between machines on one of this machine's
// interfaces, and tells the neighbours where it is.
//
// It never decides who holds it: the address is lent for a moment at a time, and the
// kernel takes it away when nobody renews it, be the daemon dead or paused.
package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/rtnl"
	"muster/state"
)

// Slack is how much longer than it was lent for the kernel may leave an address where it
// is (measured on Linux 6.18: up to 0.27 s; IPv6 rounds up).
const Slack = 500 * time.Millisecond

// Lend puts the address on the interface for that long, in whole seconds, or prolongs
// it; fresh says that it was not there. The kernel removes it when its time is over.
func Lend(prefix netip.Prefix, device string, lifetime time.Duration) (fresh bool, err error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return false, state.Errorf(state.ErrConflict, "interface %q: %w", device, err)
	}
	present, err := find(link, prefix.Addr())
	if err != nil {
		return false, err
	}
	address := address(prefix)
	address.ValidLft, address.PreferedLft = int(lifetime/time.Second), int(lifetime/time.Second)
	if prefix.Addr().Is6() {
		// Nobody else has it: that is what the lease is for.
		address.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrReplace(link, address); err != nil {
		return false, state.Errorf(state.ErrConflict, "put %s on interface %q: %w", prefix, device, err)
	}
	return !present, nil
}

// Drop takes the address from the interface; one that is not there is none to take.
func Drop(prefix netip.Prefix, device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil //nolint:nilerr // it went with its interface
	}
	err = netlink.AddrDel(link, address(prefix))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func address(prefix netip.Prefix) *netlink.Addr {
	ip := net.IP(prefix.Addr().AsSlice())
	return &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(prefix.Bits(), len(ip)*8)}}
}

func find(link netlink.Link, ip netip.Addr) (bool, error) {
	addresses, err := rtnl.Addresses(link, netlink.FAMILY_ALL)
	if err != nil {
		return false, err
	}
	for _, present := range addresses {
		if present.IP.Equal(net.IP(ip.AsSlice())) {
			return true, nil
		}
	}
	return false, nil
}

// DeviceOf returns the interface that has an address of this machine.
func DeviceOf(ip netip.Addr) (string, error) {
	links, err := rtnl.Links()
	if err != nil {
		return "", err
	}
	for _, link := range links {
		if has, err := find(link, ip); err == nil && has {
			return link.Attrs().Name, nil
		}
	}
	return "", state.Errorf(state.ErrConflict, "no interface of this machine has the address %s", ip)
}

// Announce tells the neighbours that the address is here now: what they remember of the
// machine that had it before would hold for minutes.
func Announce(_ context.Context, ip netip.Addr, device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if len(link.Attrs().HardwareAddr) != 6 {
		return nil // no neighbours that remember one
	}
	if ip.Is4() {
		err = gratuitousARP(link, ip)
	} else {
		err = unsolicitedAdvertisement(link, ip)
	}
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", ip, device, err)
	}
	return nil
}

// gratuitousARP broadcasts the address both as a question and as an answer: some
// neighbours heed only one of them (RFC 5227, section 3).
func gratuitousARP(link netlink.Link, ip netip.Addr) error {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	to := &unix.SockaddrLinklayer{Protocol: swapped(unix.ETH_P_ARP), Ifindex: link.Attrs().Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	own, address := link.Attrs().HardwareAddr, ip.As4()
	for _, operation := range []uint16{1, 2} {
		packet := []byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, and the sizes of their addresses
		packet = binary.BigEndian.AppendUint16(packet, operation)
		packet = append(append(packet, own...), address[:]...)
		packet = append(append(packet, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), address[:]...)
		if err := unix.Sendto(socket, packet, 0, to); err != nil {
			return err
		}
	}
	return nil
}

// swapped is a number in the order of the network.
func swapped(number uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, number))
}

// unsolicitedAdvertisement tells all nodes of the link (RFC 4861, section 7.2.6).
func unsolicitedAdvertisement(link netlink.Link, ip netip.Addr) error {
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	address := ip.As16()
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Attrs().Index),
		// Receivers drop what a router could have passed on.
		unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.Bind(socket, &unix.SockaddrInet6{Addr: address}),
	)
	if err != nil {
		return err
	}
	const advertisement, override, ownAddress = 136, 0x20, 2
	// The kernel fills in the checksum.
	packet := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, address[:]...)
	packet = append(append(packet, ownAddress, 1), link.Attrs().HardwareAddr...)
	all := netip.MustParseAddr("ff02::1").As16()
	return unix.Sendto(socket, packet, 0, &unix.SockaddrInet6{Addr: all, ZoneId: uint32(link.Attrs().Index)})
}
