package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/state"
)

// tableName is the network's own table, so that removing it removes every rule.
func (n *Networks) tableName(network string) string { return "muster_" + n.tag + "_" + network }

// startFirewall makes the network's rules anew, in one transaction.
func (n *Networks) startFirewall(p *plan) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach nftables: %w", err)
	}
	if err := n.stopFirewall(p.name); err != nil {
		return err
	}
	if !p.v4Firewall && !p.v6Firewall && !p.v4NAT && !p.v6NAT {
		return nil
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: n.tableName(p.name)})
	accept := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	postrouting := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, nat := range []struct {
		on     bool
		subnet netip.Prefix
	}{{p.v4NAT, p.v4}, {p.v6NAT, p.v6}} {
		if nat.on {
			conn.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: masquerade(nat.subnet)})
		}
	}
	if p.v4Firewall || p.v6Firewall {
		forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
		input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: append(onInterface(key, p.name), verdict(expr.VerdictAccept))})
		}
		for _, service := range []struct {
			protocol byte
			port     uint16
		}{
			{unix.IPPROTO_UDP, 53},
			{unix.IPPROTO_TCP, 53},
			{unix.IPPROTO_UDP, 67},
			{unix.IPPROTO_UDP, 547},
		} {
			exprs := append(onInterface(expr.MetaKeyIIFNAME, p.name), toPort(service.protocol, service.port)...)
			conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append(exprs, verdict(expr.VerdictAccept))})
		}
	}
	if err := conn.Flush(); err != nil {
		return state.Errorf(state.ErrConflict,
			"make firewall rules: %w; set ipv4.firewall, ipv6.firewall, ipv4.nat and ipv6.nat to false to do without", err)
	}
	return nil
}

func (n *Networks) stopFirewall(network string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		// Without nftables in the kernel there are no rules of ours either.
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		return fmt.Errorf("list firewall rules: %w", err)
	}
	for _, table := range tables {
		if table.Name == n.tableName(network) {
			conn.DelTable(table)
		}
	}
	return conn.Flush()
}

// onInterface matches packets that come in (IIFNAME) or go out (OIFNAME) there.
func onInterface(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

func toPort(protocol byte, port uint16) []expr.Any {
	number := make([]byte, 2)
	binary.BigEndian.PutUint16(number, port)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		// The destination port is at the same place in TCP and UDP headers.
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: number},
	}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

// masquerade hides what leaves the subnet for elsewhere behind the host.
func masquerade(subnet netip.Prefix) []expr.Any {
	protocol, source, destination, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16), uint32(4)
	if subnet.Addr().Is6() {
		protocol, source, destination, size = unix.NFPROTO_IPV6, 8, 24, 16
	}
	network := subnet.Masked().Addr().AsSlice()
	mask := make([]byte, size)
	for i := range subnet.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	within := func(offset uint32, op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
			&expr.Cmp{Op: op, Register: 1, Data: network},
		}
	}
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
	exprs = append(exprs, within(source, expr.CmpOpEq)...)
	exprs = append(exprs, within(destination, expr.CmpOpNeq)...)
	return append(exprs, &expr.Masq{})
}
