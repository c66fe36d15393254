package network

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// releaseTime bounds how long the server may take to let a lease go, and releaseEvery is
// how often it is asked.
const (
	releaseTime  = 2 * time.Second
	releaseEvery = 200 * time.Millisecond
)

// releaseLeases makes the server forget what it has handed out to an interface and is not
// what next asks for; the zero next asks for nothing. An address is free for others only
// then: the server would keep it until it expires.
func (n *Networks) releaseLeases(ctx context.Context, before, next Reservation) error {
	if before.HWAddr == "" && before.IPv6 == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	for try := 0; ; try++ {
		leases, server, err := n.handedOut(before.Network)
		if err != nil {
			return err
		}
		leases = slices.DeleteFunc(leases, func(lease handed) bool { return !lease.belongs(before) || lease.fits(before, next) })
		if len(leases) == 0 {
			return nil
		}
		if n.dnsmasqPID(before.Network) == 0 {
			return n.dropLeases(before.Network, leases)
		}
		if try%int(releaseEvery/time.Millisecond) == 0 {
			for _, lease := range leases {
				if err := n.sendRelease(ctx, before.Network, lease, server); err != nil {
					return fmt.Errorf("tell dnsmasq that %s is free: %w", lease.address, err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dnsmasq does not let %s go: %w", leases[0].address, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// belongs reports whether the lease was given to the interface of the reservation. Leases
// of IPv6 name a client, which usually ends with the hardware address and need not.
func (l handed) belongs(r Reservation) bool {
	if l.duid == "" {
		return strings.EqualFold(l.hwaddr, r.HWAddr)
	}
	return r.HWAddr != "" && strings.HasSuffix(strings.ToLower(l.duid), strings.ToLower(r.HWAddr)) || l.address == r.IPv6 || l.name != "" && l.name == r.Name
}

// fits reports whether the lease may stay when before becomes next.
func (l handed) fits(before, next Reservation) bool {
	wanted := next.IPv4
	if l.duid != "" {
		wanted = next.IPv6
	}
	return next.Name == before.Name && strings.EqualFold(next.HWAddr, before.HWAddr) && (wanted == "" || wanted == l.address)
}

// dropForeign takes the leases from the file of a server that does not run that the plan
// has no DHCP for: the server would keep them, and let none of them go.
func (n *Networks) dropForeign(p *plan) error {
	leases, _, err := n.handedOut(p.name)
	if err != nil {
		return err
	}
	foreign := slices.DeleteFunc(leases, func(l handed) bool {
		address, err := netip.ParseAddr(l.address)
		return err == nil && (p.v4DHCP && p.v4.Contains(address) || p.v6DHCP && p.v6.Contains(address))
	})
	if len(foreign) == 0 {
		return nil
	}
	return n.dropLeases(p.name, foreign)
}

// dropLeases takes leases from the file of a server that does not run.
func (n *Networks) dropLeases(network string, drop []handed) error {
	data, err := os.ReadFile(n.path(network, "leases"))
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(data)) {
		if !slices.ContainsFunc(drop, func(l handed) bool { return l.line == line }) {
			kept.WriteString(line)
		}
	}
	return n.write(network, "leases", []byte(kept.String()))
}

// sendRelease sends what a client sends that gives its address back (RFC 2131, section
// 4.4.6; RFC 8415, section 18.2.7).
func (n *Networks) sendRelease(ctx context.Context, network string, lease handed, server string) error {
	p, err := n.runningPlan(network)
	if err != nil {
		return err
	}
	if lease.duid == "" {
		return send(ctx, network, "udp4", netip.AddrPortFrom(p.v4.Addr(), 67), func() ([]byte, error) { return release4(lease, p.v4.Addr()) })
	}
	// All DHCP servers of the link (RFC 8415, section 7.1).
	all := netip.MustParseAddr("ff02::1:2").WithZone(network)
	return send(ctx, network, "udp6", netip.AddrPortFrom(all, 547), func() ([]byte, error) { return release6(lease, server) })
}

// send sends one packet that the server on the bridge takes for one from the bridge.
func send(ctx context.Context, bridge, protocol string, to netip.AddrPort, packet func() ([]byte, error)) error {
	content, err := packet()
	if err != nil {
		return err
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, bridge)
			if protocol == "udp6" {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1))
			}
		})
		return errors.Join(err, failed)
	}}
	conn, err := dialer.DialContext(ctx, protocol, to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(content)
	return err
}

// release4 is a DHCPRELEASE (RFC 2131, table 5).
func release4(lease handed, server netip.Addr) ([]byte, error) {
	hwaddr, err := net.ParseMAC(lease.hwaddr)
	if err != nil {
		return nil, err
	}
	address, err := netip.ParseAddr(lease.address)
	if err != nil {
		return nil, err
	}
	packet := make([]byte, 236, 300)
	packet[0], packet[1], packet[2] = 1, 1, byte(len(hwaddr)) // a request, over Ethernet
	binary.BigEndian.PutUint32(packet[4:], rand.Uint32())
	copy(packet[12:16], address.AsSlice())
	copy(packet[28:44], hwaddr)
	packet = append(packet, 99, 130, 83, 99) // the options begin (RFC 2131, section 3)
	packet = append(packet, 53, 1, 7)        // message type: release
	packet = append(packet, 54, 4)           // server
	packet = append(packet, server.AsSlice()...)
	if lease.clientID != "*" {
		id, err := hex.DecodeString(strings.ReplaceAll(lease.clientID, ":", ""))
		if err != nil || len(id) > 255 {
			return nil, fmt.Errorf("client id %q of a lease", lease.clientID)
		}
		packet = append(append(packet, 61, byte(len(id))), id...)
	}
	return append(packet, 255), nil
}

// release6 is a RELEASE (RFC 8415, sections 7.3 and 21).
func release6(lease handed, server string) ([]byte, error) {
	client, err := hex.DecodeString(strings.ReplaceAll(lease.duid, ":", ""))
	if err != nil {
		return nil, err
	}
	serverID, err := hex.DecodeString(strings.ReplaceAll(server, ":", ""))
	if err != nil {
		return nil, err
	}
	address, err := netip.ParseAddr(lease.address)
	if err != nil {
		return nil, err
	}
	// Temporary addresses are marked with a T.
	number, temporary := strings.CutPrefix(lease.iaid, "T")
	iaid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return nil, err
	}
	option := func(code uint16, content []byte) []byte {
		head := binary.BigEndian.AppendUint16(nil, code)
		head = binary.BigEndian.AppendUint16(head, uint16(len(content)))
		return append(head, content...)
	}
	inner := option(5, append(address.AsSlice(), make([]byte, 8)...)) // an address, its two lifetimes
	association := binary.BigEndian.AppendUint32(nil, uint32(iaid))
	code := uint16(3) // IA_NA, with two times
	if temporary {
		code = 4 // IA_TA
	} else {
		association = append(association, make([]byte, 8)...)
	}
	packet := []byte{8, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
	packet = append(packet, option(1, client)...)
	packet = append(packet, option(2, serverID)...)
	packet = append(packet, option(8, []byte{0, 0})...) // time elapsed
	return append(packet, option(code, append(association, inner...))...), nil
}
