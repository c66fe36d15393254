package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"muster/node/storage"
	"muster/rpc/mux"
	"muster/rpc/rest"
	"muster/rpc/rest/api"
	"muster/state"
)

// restConfig gives the REST server what it serves.
func (m *member) restConfig(group int) rest.Config {
	return rest.Config{
		Log: m.log, InOrder: m.inOrder, View: m.store.View, Placement: placement{m}, Group: group, SharedExtensions: m.cluster.SharedExtensions,
		State: rest.Log{
			Fresh: m.store.Fresh, Stale: m.store.Stale, Position: func() uint64 { return uint64(m.store.View().Revision()) },
			Wait: func(ctx context.Context, revision uint64) error {
				return m.store.WaitRevision(ctx, state.Revision(revision))
			},
		},
		Registry: rest.Log{Fresh: m.coord.Fresh, Stale: m.coord.Stale, Position: m.coord.Applied, Wait: m.coord.WaitApplied},
		Host: rest.Host{
			Name:        func() string { return m.cluster.Self() },
			Clustered:   m.cluster.Clustered,
			Address:     m.shownAddress,
			Certificate: func() *x509.Certificate { return m.identity.Server().Leaf },
			StorageDrivers: func() []api.ServerStorageDriverInfo {
				var drivers []api.ServerStorageDriverInfo
				for _, driver := range storage.Drivers(context.Background()) {
					if driver.Problem == "" {
						drivers = append(drivers, api.ServerStorageDriverInfo{Name: driver.Name, Version: driver.Version})
					}
				}
				return drivers
			},
			Version: version, LXCVersion: m.driver.Version,
			LXCFeatures:    lxcFeatures(m.driver.Version),
			KernelFeatures: kernelFeatures(),
		},
		Settings: m.cluster, Events: m.events, Resume: m.cluster, Operations: m.ops, Certificates: m.cluster, Profiles: m.cluster,
		Instances: m.cluster, Snapshots: m.cluster, Execs: m.cluster, Files: m.cluster, Images: m.cluster, Transfers: m.cluster, News: m.cluster,
		Networks: m.cluster, Pools: m.cluster, Daemon: m, Members: m.cluster, Groups: m.cluster, Peers: m.peers,
	}
}

// kernelFeatures are what clients show of the kernel; each is looked up.
func kernelFeatures() map[string]bool {
	actions, _ := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return map[string]bool{
		// mount_setattr(2) and capabilities(7) name the releases.
		"idmapped_mounts":  atLeast(string(release), 5, 12),
		"unpriv_fscaps":    atLeast(string(release), 4, 14),
		"seccomp_listener": strings.Contains(string(actions), "user_notif"),
	}
}

// lxcFeatures are what clients show of liblxc; its release notes of 4.0 name them.
func lxcFeatures(version string) map[string]bool {
	has := atLeast(version, 4, 0)
	return map[string]bool{"cgroup2": has, "mount_injection_file": has, "network_veth_router": has, "pidfd": has}
}

// atLeast compares the first two numbers of a version.
func atLeast(version string, major, minor int) bool {
	var first, second int
	if count, _ := fmt.Sscanf(version, "%d.%d", &first, &second); count != 2 {
		return false
	}
	return first > major || first == major && second >= minor
}

// placement says which member answers for what.
type placement struct{ m *member }

// Self implements rest.Placement.
func (p placement) Self() string { return p.m.cluster.Self() }

// Owner implements rest.Placement: the host of an instance or volume as it is
// recorded, the member that runs an operation.
func (p placement) Owner(ctx context.Context, thing rest.Thing) (string, error) {
	switch thing.Kind {
	case "instance":
		inst, err := p.m.cluster.Instance(ctx, thing.Project, thing.Name)
		if err != nil {
			return "", err
		}
		return inst.Location, nil
	case "image":
		return p.m.cluster.ImageHolder(ctx, thing.Project, thing.Name)
	case "volume":
		if thing.Type != string(state.VolumeContainer) {
			return p.Self(), nil // there are no others
		}
		// Volumes of instances are where their instance is.
		inst, err := p.m.cluster.Instance(ctx, thing.Project, thing.Name)
		if err != nil {
			return "", err
		}
		return inst.Location, nil
	case "operation":
		op, err := p.m.ops.Get(thing.Name)
		if err != nil {
			return "", err
		}
		if op.Final() {
			// Everybody knows how it ended; its member may be gone.
			return p.Self(), nil
		}
		owner, err := p.m.store.View().MemberByID(op.Member)
		if err != nil {
			return "", err
		}
		return owner.Name, nil
	}
	return p.Self(), nil
}

// Others implements rest.Placement.
func (p placement) Others() []string {
	var names []string
	for _, other := range p.m.store.View().Members() {
		if other.ID != p.m.identity.MemberID() && p.m.cluster.Online(other.ID) {
			names = append(names, other.Name)
		}
	}
	return names
}

// Host implements rest.Placement.
func (p placement) Host() (string, error) { return p.m.cluster.Host() }

// Member implements rest.Placement.
func (p placement) Member(name string) bool {
	_, err := p.m.store.View().Member(name)
	return err == nil
}

var (
	_ rest.Placement = placement{}
	_ rest.Daemon    = (*member)(nil)
)

// shownAddress is where the API listens, by the name that core.https_address has for it:
// clients look it up for themselves. Outside a cluster the name may lead to this machine's
// loopback here, which is no address to hand out.
func (m *member) shownAddress() string {
	address := m.mux.Address()
	set, err := mux.ParseAddress(m.store.View().Setting(m.cluster.Self(), "core.https_address"))
	host, _, split := net.SplitHostPort(set)
	_, port, bound := net.SplitHostPort(address)
	if errors.Join(err, split, bound) != nil || m.cluster.Clustered() || net.ParseIP(host) != nil {
		return address
	}
	return net.JoinHostPort(host, port)
}
