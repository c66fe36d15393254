package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"muster/state"
)

// Reservation is what a managed network keeps for one nic: the name in the DNS, and
// addresses if they are to be certain ones.
type Reservation struct {
	Network string `json:"-"`
	// Device is the nic's name in the instance's configuration.
	Device string `json:"-"`
	// Name is what the DNS calls the instance.
	Name   string `json:"name"`
	HWAddr string `json:"hwaddr"`
	// IPv4 and IPv6 are the addresses to hand out; empty: any.
	IPv4 string `json:"ipv4,omitempty"`
	IPv6 string `json:"ipv6,omitempty"`
}

// A reservation is a file in the directory of its network that dnsmasq watches, called
// OWNER:DEVICE; neither may hold a colon. Its first line, a comment to dnsmasq, is the
// reservation, the second is what dnsmasq makes of it.
const (
	reservationDir    = "hosts"
	ownerSeparator    = ":"
	reservationPrefix = "# "
)

// Keep makes the reservations of the owner, an instance's name on this host, exactly the
// wanted ones, on all networks. Those that are no longer wanted are released with what the
// server has handed out for them; with none wanted, nothing of the owner is left. Keep is
// the only way to make or release a reservation, and may be repeated. An address that is
// not in its network's subnet is ErrInvalid; the other reservations are made all the same.
func (n *Networks) Keep(ctx context.Context, owner string, wanted []Reservation) error {
	n.hosts.Lock()
	defer n.hosts.Unlock()
	if err := n.loadReservations(); err != nil {
		return err
	}
	wants := map[string]map[string]Reservation{}
	for _, r := range wanted {
		if wants[r.Network] == nil {
			wants[r.Network] = map[string]Reservation{}
		}
		wants[r.Network][owner+ownerSeparator+r.Device] = r
	}
	var failed []error
	for _, network := range slices.Sorted(maps.Keys(n.reserved)) {
		for id := range n.reserved[network] {
			if of, _, _ := strings.Cut(id, ownerSeparator); of != owner {
				continue
			}
			if _, keep := wants[network][id]; !keep {
				if err := n.release(ctx, network, id); err != nil {
					failed = append(failed, fmt.Errorf("network %q: release the address of %s: %w", network, id, err))
				}
			}
		}
	}
	for _, network := range slices.Sorted(maps.Keys(wants)) {
		for id, r := range wants[network] {
			if err := n.reserve(ctx, id, r); err != nil {
				failed = append(failed, fmt.Errorf("device %q: %w", r.Device, err))
			}
		}
	}
	return errors.Join(failed...)
}

// Owners are the hosts' names of the instances that reservations are kept for.
func (n *Networks) Owners() ([]string, error) {
	n.hosts.Lock()
	defer n.hosts.Unlock()
	if err := n.loadReservations(); err != nil {
		return nil, err
	}
	owners := map[string]bool{}
	for _, ids := range n.reserved {
		for id := range ids {
			owner, _, _ := strings.Cut(id, ownerSeparator)
			owners[owner] = true
		}
	}
	return slices.Sorted(maps.Keys(owners)), nil
}

// reservationsOf are the reservations of one network, in the order of their files.
func (n *Networks) reservationsOf(network string) []Reservation {
	n.hosts.Lock()
	defer n.hosts.Unlock()
	if err := n.loadReservations(); err != nil {
		return nil
	}
	var list []Reservation
	for _, id := range slices.Sorted(maps.Keys(n.reserved[network])) {
		list = append(list, n.reserved[network][id])
	}
	return list
}

// loadReservations reads the reservations of all networks once; from then on what is in
// memory is what is on the disk. The caller holds n.hosts.
func (n *Networks) loadReservations() error {
	if n.reserved != nil {
		return nil
	}
	reserved := map[string]map[string]Reservation{}
	networks, err := os.ReadDir(n.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, network := range networks {
		found, err := n.readReservations(network.Name())
		if err != nil {
			return err
		}
		reserved[network.Name()] = found
	}
	n.reserved = reserved
	return nil
}

func (n *Networks) readReservations(network string) (map[string]Reservation, error) {
	found := map[string]Reservation{}
	files, err := os.ReadDir(n.path(network, reservationDir))
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		data, err := os.ReadFile(n.path(network, reservationDir, file.Name()))
		if err != nil {
			return nil, err
		}
		// One that can't be read is there with nothing in it, so that it is replaced or
		// released.
		var r Reservation
		first, _, _ := bytes.Cut(data, []byte("\n"))
		_ = json.Unmarshal(bytes.TrimPrefix(first, []byte(reservationPrefix)), &r)
		r.Network = network
		_, r.Device, _ = strings.Cut(file.Name(), ownerSeparator)
		found[file.Name()] = r
	}
	return found, nil
}

// reserve makes a reservation or changes it. The caller holds n.hosts.
func (n *Networks) reserve(ctx context.Context, id string, r Reservation) error {
	p, err := n.runningPlan(r.Network)
	if err != nil {
		return err
	}
	content, err := p.reservation(r)
	if err != nil {
		return err
	}
	before, there := n.reserved[r.Network][id]
	if there && before == r {
		return nil
	}
	if err := n.free(ctx, id, r); err != nil {
		return err
	}
	if there {
		// The lease goes first: killed in between, the file still says what to release.
		if err := n.releaseLeases(ctx, before, r); err != nil {
			return err
		}
	}
	if err := n.write(r.Network, reservationDir+"/"+id, content); err != nil {
		return err
	}
	if n.reserved[r.Network] == nil {
		n.reserved[r.Network] = map[string]Reservation{}
	}
	n.reserved[r.Network][id] = r
	if there {
		// The server sees new and changed files by itself, but forgets only when it is told
		// to read all again.
		n.reload(r.Network)
	}
	return nil
}

// free refuses a reservation of an address that another instance of this machine has
// leased, and releases a lease that is nobody's here: the server would not hand the address
// out before it expires. The caller holds n.hosts.
func (n *Networks) free(ctx context.Context, id string, r Reservation) error {
	if r.IPv4 == "" && r.IPv6 == "" {
		return nil
	}
	leases, _, err := n.handedOut(r.Network)
	if err != nil {
		return err
	}
	for _, lease := range leases {
		if lease.address != r.IPv4 && lease.address != r.IPv6 || lease.belongs(r) {
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(n.reserved[r.Network])) {
			if other != id && lease.belongs(n.reserved[r.Network][other]) {
				return state.Errorf(state.ErrInvalid, "%s of network %q is leased to instance %q now: choose another, or set another address of that instance first",
					lease.address, r.Network, n.reserved[r.Network][other].Name)
			}
		}
		stranger := Reservation{Network: r.Network, HWAddr: lease.hwaddr, Name: lease.name, IPv6: lease.address}
		if err := n.releaseLeases(ctx, stranger, Reservation{}); err != nil {
			return err
		}
	}
	return nil
}

// release takes a reservation back. The caller holds n.hosts.
func (n *Networks) release(ctx context.Context, network, id string) error {
	if err := n.releaseLeases(ctx, n.reserved[network][id], Reservation{}); err != nil {
		return err
	}
	err := os.Remove(n.path(network, reservationDir, id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(n.reserved[network], id)
	n.reload(network)
	return nil
}

// renderReservations writes the reservations of a network that was changed anew: what
// dnsmasq is told of them depends on its configuration.
func (n *Networks) renderReservations(p *plan) error {
	n.hosts.Lock()
	defer n.hosts.Unlock()
	if err := n.loadReservations(); err != nil {
		return err
	}
	changed := false
	for id, r := range n.reserved[p.name] {
		content, err := p.reservation(r)
		if err != nil {
			n.log.Warn("a reservation does not fit its network any more", "network", p.name, "reservation", id, "error", err)
			continue
		}
		current, err := os.ReadFile(n.path(p.name, reservationDir, id))
		if err == nil && bytes.Equal(current, content) {
			continue
		}
		if err := n.write(p.name, reservationDir+"/"+id, content); err != nil {
			return err
		}
		changed = true
	}
	if changed {
		n.reload(p.name)
	}
	return nil
}

// forgetReservations is for a network whose directory is gone.
func (n *Networks) forgetReservations(network string) {
	n.hosts.Lock()
	defer n.hosts.Unlock()
	delete(n.reserved, network)
}

// reservation is the content of a reservation's file.
func (p *plan) reservation(r Reservation) ([]byte, error) {
	entry := []string{r.HWAddr}
	for _, wanted := range []struct {
		key, value string
		subnet     netip.Prefix
	}{{"ipv4.address", r.IPv4, p.v4}, {"ipv6.address", r.IPv6, p.v6}} {
		if wanted.value == "" {
			continue
		}
		address, err := netip.ParseAddr(wanted.value)
		if err != nil || !wanted.subnet.Contains(address) {
			return nil, state.Errorf(state.ErrInvalid, "%s %q is not in the subnet %s of network %q", wanted.key, wanted.value, wanted.subnet, p.name)
		}
		if address.Is6() {
			entry = append(entry, "["+address.String()+"]")
		} else {
			entry = append(entry, address.String())
		}
	}
	if p.managedNames() {
		entry = append(entry, r.Name)
	}
	comment, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%s\n%s\n", reservationPrefix, comment, strings.Join(entry, ",")), nil
}

// runningPlan is the plan of a network that this machine runs.
func (n *Networks) runningPlan(network string) (*plan, error) {
	n.known.Lock()
	running := n.running[network]
	n.known.Unlock()
	if running == nil {
		return nil, state.Errorf(state.ErrUnavailable, "network %q does not run on this member: see the daemon's log for why", network)
	}
	return planOf(running)
}

// write writes a file of a network whole, or not at all.
func (n *Networks) write(network, file string, content []byte) error {
	// dnsmasq leaves out files that begin with a dot; this one is not in its directory anyway.
	staged := n.path(network, "."+strings.ReplaceAll(file, "/", "-"))
	if err := os.WriteFile(staged, content, 0o644); err != nil {
		return err
	}
	return os.Rename(staged, n.path(network, file))
}
