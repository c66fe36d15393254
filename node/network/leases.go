package network

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// Lease is an address that the network's server has handed out or keeps for an
// instance.
type Lease struct {
	Hostname string
	HWAddr   string
	Address  string
	// Type is "dynamic" or "static".
	Type string
}

// Leases returns the network's leases, static ones first.
func (n *Networks) Leases(_ context.Context, network string) ([]Lease, error) {
	leases := []Lease{}
	static := map[string]bool{}
	for _, r := range n.reservationsOf(network) {
		for _, address := range []string{r.IPv4, r.IPv6} {
			if address != "" {
				static[address] = true
				leases = append(leases, Lease{Hostname: r.Name, HWAddr: r.HWAddr, Address: address, Type: "static"})
			}
		}
	}
	handedOut, _, err := n.handedOut(network)
	if err != nil {
		return nil, err
	}
	for _, lease := range handedOut {
		if lease.duid == "" && !static[lease.address] {
			leases = append(leases, Lease{Hostname: lease.name, HWAddr: lease.hwaddr, Address: lease.address, Type: "dynamic"})
		}
	}
	return leases, nil
}

// handed is an address that the server has handed out, as a line of its file says
// (dnsmasq(8), "dhcp-leasefile").
type handed struct {
	line          string
	address, name string
	hwaddr        string // of IPv4
	clientID      string // of IPv4, in hexadecimal with colons; "*" when there is none
	duid, iaid    string // of IPv6
}

// handedOut reads the server's file; server is its own identity for DHCPv6.
func (n *Networks) handedOut(network string) (list []handed, server string, err error) {
	data, err := os.ReadFile(n.path(network, "leases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "duid" {
			server = fields[1]
			continue
		}
		if len(fields) < 5 {
			continue
		}
		lease := handed{line: line, address: fields[2], name: fields[3]}
		if lease.name == "*" {
			lease.name = ""
		}
		if server == "" {
			lease.hwaddr, lease.clientID = fields[1], fields[4]
		} else {
			lease.iaid, lease.duid = fields[1], fields[4]
		}
		list = append(list, lease)
	}
	return list, server, nil
}
