// Package network keeps one machine's managed networks: the bridge, its DHCP and
// DNS server, and the firewall rules that go with it. It also tells about the
// interfaces that the machine has by itself.
//
// It never touches what it did not make: everything of its own carries the
// daemon's tag, so that two daemons on one machine leave each other alone. It
// never shells out to ip or nft.
package network

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"muster/node/network/dump"
	"muster/state"
)

// Config is what Networks needs.
type Config struct {
	// Dir holds one directory for each network ($MUSTER_DIR/networks).
	Dir string
	Log *slog.Logger
}

// Networks are the managed networks of this machine. Its methods may be called
// from many goroutines.
type Networks struct {
	dir string
	tag string
	log *slog.Logger

	// mu orders changes of networks; they are rare.
	mu sync.Mutex

	// hosts orders changes of reservations. It may be taken while mu is held, not the other
	// way round.
	hosts sync.Mutex
	// reserved are the reservations of each network by their files' names; nil until they
	// are read.
	reserved map[string]map[string]Reservation // guarded by hosts

	known   sync.Mutex
	running map[string]*state.Network // guarded by known
}

// New returns the networks kept in cfg.Dir. It touches nothing.
func New(cfg Config) (*Networks, error) {
	if cfg.Dir == "" {
		return nil, state.Errorf(state.ErrInvalid, "networks need a directory")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	return &Networks{dir: dir, tag: hex.EncodeToString(sum[:4]), log: cfg.Log, running: map[string]*state.Network{}}, nil
}

// alias marks a link as this daemon's.
func (n *Networks) alias(name string) string { return "muster " + n.tag + " " + name }

func (n *Networks) path(name string, file ...string) string {
	return filepath.Join(append([]string{n.dir, name}, file...)...)
}

// Start makes the network on this machine, or brings what is there in line with
// its configuration. It may be repeated. An interface of that name that is not
// ours is ErrConflict. The caller names the network in the error.
func (n *Networks) Start(ctx context.Context, network state.Network) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.start(ctx, &network)
}

func (n *Networks) start(ctx context.Context, network *state.Network) error {
	plan, err := planOf(network)
	if err != nil {
		return err
	}
	// The directory is the first to come and the last to go: what it names is looked for
	// when a daemon that was killed is started again.
	if err := os.MkdirAll(n.path(network.Name, reservationDir), 0o755); err != nil {
		return err
	}
	if _, err := netlink.LinkByName(network.Name); isNotFound(err) {
		// A server that outlived its bridge would not hear the new one.
		if err := n.stopDnsmasq(ctx, network.Name); err != nil {
			return err
		}
	}
	if err := n.startBridge(plan); err != nil {
		return err
	}
	if err := n.startFirewall(plan); err != nil {
		return err
	}
	if err := n.renderReservations(plan); err != nil {
		return err
	}
	if err := n.startDnsmasq(ctx, plan); err != nil {
		return err
	}
	n.setRunning(network.Name, network)
	return nil
}

// setRunning notes a network that this machine runs; nil: no longer.
func (n *Networks) setRunning(name string, network *state.Network) {
	n.known.Lock()
	defer n.known.Unlock()
	if network == nil {
		delete(n.running, name)
		return
	}
	n.running[name] = network
}

// Running reports whether this machine runs the network.
func (n *Networks) Running(name string) bool {
	n.known.Lock()
	defer n.known.Unlock()
	return n.running[name] != nil
}

// Lost reports whether a network that this machine ran has no bridge any more, or somebody
// else's is in its place. It does not run from then on.
func (n *Networks) Lost(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.Running(name) {
		return false
	}
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().Alias == n.alias(name) || err != nil && !isNotFound(err) {
		return false
	}
	n.setRunning(name, nil)
	return true
}

// Plug puts those of the interfaces that are there into the network's bridge.
func (n *Networks) Plug(name string, ports ...string) error {
	bridge, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("network %q: %w", name, err)
	}
	var failed []error
	for _, port := range ports {
		link, err := netlink.LinkByName(port)
		if err == nil && link.Attrs().MasterIndex != bridge.Attrs().Index {
			err = netlink.LinkSetMaster(link, bridge)
		}
		if err != nil && !isNotFound(err) {
			failed = append(failed, fmt.Errorf("network %q: plug %s in: %w", name, port, err))
		}
	}
	return errors.Join(failed...)
}

// allRunning are the networks that this machine runs.
func (n *Networks) allRunning() map[string]*state.Network {
	n.known.Lock()
	defer n.known.Unlock()
	return maps.Clone(n.running)
}

// Delete removes the network from this machine. What is gone already, or was
// only half made, is no error.
func (n *Networks) Delete(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.remove(ctx, name)
}

func (n *Networks) remove(ctx context.Context, name string) error {
	if err := n.stop(ctx, name); err != nil {
		return err
	}
	n.forgetReservations(name)
	return os.RemoveAll(n.path(name))
}

func (n *Networks) stop(ctx context.Context, name string) error {
	if err := n.stopDnsmasq(ctx, name); err != nil {
		return err
	}
	if err := n.stopFirewall(name); err != nil {
		return err
	}
	if err := n.stopBridge(name); err != nil {
		return err
	}
	n.setRunning(name, nil)
	return nil
}

// StopAll takes the networks from this machine that nothing is plugged into, for a machine
// that goes down: DHCP server, firewall rules, bridge. Their leases stay, and Start or
// Reconcile bring them back.
func (n *Networks) StopAll(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var failed []error
	for name, network := range n.allRunning() {
		if n.used(network) {
			continue
		}
		if err := n.stop(ctx, name); err != nil {
			failed = append(failed, fmt.Errorf("network %q: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// used reports whether the network's bridge has a port that is not one of its external
// interfaces: a container's, or somebody else's.
func (n *Networks) used(network *state.Network) bool {
	link, err := netlink.LinkByName(network.Name)
	if err != nil {
		return !isNotFound(err)
	}
	bridge, err := bridgeState(link)
	if err != nil {
		return true
	}
	external := strings.FieldsFunc(network.Config["bridge.external_interfaces"], func(r rune) bool { return r == ',' || r == ' ' })
	return slices.ContainsFunc(bridge.Ports, func(port string) bool { return !slices.Contains(external, port) })
}

// Rename gives a network that nothing uses another name.
func (n *Networks) Rename(ctx context.Context, network state.Network, newName string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.remove(ctx, network.Name); err != nil {
		return fmt.Errorf("network %q: %w", network.Name, err)
	}
	network.Name = newName
	if err := n.start(ctx, &network); err != nil {
		return fmt.Errorf("network %q: %w", newName, err)
	}
	return nil
}

// Reconcile starts every known network and removes those of this daemon that
// nobody knows any more. Networks that can't be started are named in the error;
// the others run.
func (n *Networks) Reconcile(ctx context.Context, known []*state.Network) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := map[string]bool{}
	var failed []error
	for _, network := range known {
		names[network.Name] = true
		if err := n.start(ctx, network); err != nil {
			failed = append(failed, fmt.Errorf("network %q: %w", network.Name, err))
		}
	}
	if err := n.removeUnmarked(); err != nil {
		failed = append(failed, err)
	}
	links, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return errors.Join(append(failed, err)...)
	}
	stale := map[string]bool{}
	for _, link := range links {
		if name, ours := strings.CutPrefix(link.Attrs().Alias, "muster "+n.tag+" "); ours && !names[name] {
			stale[name] = true
		}
	}
	firewalled, err := n.firewalled()
	if err != nil {
		failed = append(failed, err)
	}
	for _, name := range firewalled {
		if !names[name] {
			stale[name] = true
		}
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil && !os.IsNotExist(err) {
		failed = append(failed, err)
	}
	for _, entry := range entries {
		if !names[entry.Name()] {
			stale[entry.Name()] = true
		}
	}
	for name := range stale {
		n.log.Info("network that nothing knows of removed", "network", name)
		if err := n.remove(ctx, name); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Run sees to it that the DHCP servers run until ctx ends. It leaves them running
// then: containers outlive the daemon, and so does their network.
func (n *Networks) Run(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.supervise(ctx)
		}
	}
}

func (n *Networks) supervise(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, network := range n.allRunning() {
		plan, err := planOf(network)
		if err != nil || !plan.dnsmasq() || n.dnsmasqPID(name) != 0 {
			continue
		}
		n.log.Warn("dnsmasq had ended and is started again", "network", name)
		if err := n.startDnsmasq(ctx, plan); err != nil {
			n.log.Error("start dnsmasq", "network", name, "error", err)
		}
	}
}

// NewHWAddr makes up a hardware address with the prefix 00:16:3e, which the Xen
// project lets virtual machines and containers use.
func (n *Networks) NewHWAddr() string {
	random := make([]byte, 3)
	_, _ = rand.Read(random) // never fails since Go 1.24
	return fmt.Sprintf("00:16:3e:%02x:%02x:%02x", random[0], random[1], random[2])
}

// NewHostName makes up a name for the host's end of a veth that no interface of
// this machine has.
func (n *Networks) NewHostName() (string, error) {
	for range 16 {
		random := make([]byte, 4)
		_, _ = rand.Read(random)
		if name := "veth" + hex.EncodeToString(random); !InterfaceExists(name) {
			return name, nil
		}
	}
	return "", errors.New("no free name for an interface found")
}

// InterfaceExists reports whether this machine has an interface of that name.
func InterfaceExists(name string) bool {
	// Not by /sys: that shows the namespace it was mounted in.
	_, err := netlink.LinkByName(name)
	return err == nil
}
