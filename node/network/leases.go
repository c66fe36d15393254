package network

import (
	"bufio"
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
	leases, err := n.staticLeases(network)
	if err != nil {
		return nil, err
	}
	static := map[string]bool{}
	for _, lease := range leases {
		static[lease.Address] = true
	}
	file, err := os.Open(n.path(network, "leases"))
	if errors.Is(err, fs.ErrNotExist) {
		return leases, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// expiry, hardware address, address, name, client id (dnsmasq(8),
		// "dhcp-leasefile"); "duid" opens the part for IPv6.
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[0] == "duid" || static[fields[2]] {
			continue
		}
		name := fields[3]
		if name == "*" {
			name = ""
		}
		leases = append(leases, Lease{Hostname: name, HWAddr: fields[1], Address: fields[2], Type: "dynamic"})
	}
	return leases, lines.Err()
}

// staticLeases reads the reservations that name an address.
func (n *Networks) staticLeases(network string) ([]Lease, error) {
	entries, err := os.ReadDir(n.path(network, "hosts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	leases := []Lease{}
	for _, entry := range entries {
		data, err := os.ReadFile(n.path(network, "hosts", entry.Name()))
		if err != nil {
			continue // released meanwhile
		}
		fields := strings.Split(strings.TrimSpace(string(data)), ",")
		for _, address := range fields[1 : len(fields)-1] {
			leases = append(leases, Lease{
				Hostname: fields[len(fields)-1], HWAddr: fields[0], Address: strings.Trim(address, "[]"), Type: "static",
			})
		}
	}
	return leases, nil
}
