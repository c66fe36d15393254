package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"muster/state"
)

// tableName is the network's own table, so that removing it removes every rule.
func (n *Networks) tableName(network string) string { return n.tablePrefix() + network }

func (n *Networks) tablePrefix() string { return "muster_" + n.tag + "_" }

// family is what the firewall needs to know of IPv4 or IPv6.
type family struct {
	protocol               byte // unix.NFPROTO_*
	subnet                 netip.Prefix
	firewall, nat, routing bool
	dhcp                   uint16 // the DHCP server's port
}

func (p *plan) families() []family {
	return []family{
		{unix.NFPROTO_IPV4, p.v4, p.v4Firewall, p.v4NAT, p.v4Routing, 67},
		{unix.NFPROTO_IPV6, p.v6, p.v6Firewall, p.v6NAT, p.v6Routing, 547},
	}
}

// startFirewall makes the network's rules anew, in one transaction: at no moment are there
// none, or some.
func (n *Networks) startFirewall(p *plan) error {
	if !slices.ContainsFunc(p.families(), func(f family) bool { return f.firewall || f.nat || !f.routing }) {
		return n.stopFirewall(p.name)
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: n.tableName(p.name)}
	// Removing a table that does not exist fails, so it is made first.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	accept := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	postrouting := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule := func(chain *nftables.Chain, exprs ...[]expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(exprs...)})
	}
	for _, f := range p.families() {
		if f.nat {
			rule(postrouting, masquerade(f.subnet))
		}
		of := ofProtocol(f.protocol)
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			switch {
			case !f.routing:
				rule(forward, of, onInterface(key, p.name), verdict(expr.VerdictDrop))
			case f.firewall:
				rule(forward, of, onInterface(key, p.name), verdict(expr.VerdictAccept))
			}
		}
		if !f.firewall {
			continue
		}
		for _, service := range []struct {
			protocol byte
			port     uint16
		}{
			{unix.IPPROTO_UDP, 53},
			{unix.IPPROTO_TCP, 53},
			{unix.IPPROTO_UDP, f.dhcp},
		} {
			rule(input, of, onInterface(expr.MetaKeyIIFNAME, p.name), toPort(service.protocol, service.port), verdict(expr.VerdictAccept))
		}
	}
	if err := conn.Flush(); err != nil {
		return state.Errorf(state.ErrConflict,
			"make firewall rules: %w; set ipv4.firewall, ipv6.firewall, ipv4.nat and ipv6.nat to false to do without", err)
	}
	return nil
}

// tables are the names of this daemon's tables.
func (n *Networks) tables(conn *nftables.Conn) ([]*nftables.Table, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	// Without nftables in the kernel there are no rules of ours either.
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list firewall rules: %w", err)
	}
	return slices.DeleteFunc(tables, func(t *nftables.Table) bool { return !strings.HasPrefix(t.Name, n.tablePrefix()) }), nil
}

// firewalled are the networks that this daemon has rules for.
func (n *Networks) firewalled() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("reach nftables: %w", err)
	}
	tables, err := n.tables(conn)
	var names []string
	for _, table := range tables {
		names = append(names, strings.TrimPrefix(table.Name, n.tablePrefix()))
	}
	return names, err
}

func (n *Networks) stopFirewall(network string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach nftables: %w", err)
	}
	tables, err := n.tables(conn)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if table.Name == n.tableName(network) {
			conn.DelTable(table)
		}
	}
	return conn.Flush()
}

// ofProtocol matches packets of IPv4 or IPv6.
func ofProtocol(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
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

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

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
	exprs := append(ofProtocol(protocol), within(source, expr.CmpOpEq)...)
	exprs = append(exprs, within(destination, expr.CmpOpNeq)...)
	return append(exprs, &expr.Masq{})
}
