package rest

import (
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/cluster/pki"
	"muster/rpc/rest/api"
	"muster/rpc/rest/machine"
	"muster/state"
	"muster/state/store"
)

// Host is what this member can tell of itself. The functions must not be nil;
// the facts may be empty.
type Host struct {
	// Name is this member's name.
	Name func() string
	// Clustered reports whether there is more than this one member.
	Clustered func() bool
	// Address is the host:port that the API listens on, or "" while it does not.
	Address func() string
	// Certificate is the cluster's, which clients pin.
	Certificate func() *x509.Certificate
	// StorageDrivers are the drivers that pools can be made with here.
	StorageDrivers func() []api.ServerStorageDriverInfo

	// Version is muster's own.
	Version string
	// LXCVersion is liblxc's.
	LXCVersion string
	// LXCFeatures and KernelFeatures map what containers may use to whether it
	// is there.
	LXCFeatures    map[string]bool
	KernelFeatures map[string]bool
}

// remembered calls f again only when its last result is a minute old: clients ask
// for GET /1.0 before everything else, and looking for storage drivers takes
// longer than all the rest of it.
func remembered[T any](f func() T) func() T {
	var mu sync.Mutex
	var value T
	var at time.Time
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(at) > time.Minute {
			value, at = f(), time.Now()
		}
		return value
	}
}

// environment is what GET /1.0 tells of the host.
func (h Host) environment(view *store.View, project string) api.ServerEnvironment {
	certificate := h.Certificate()
	facts := machine.Read("/")
	drivers := h.StorageDrivers()
	name, version := inUse(view.Pools(), drivers)
	return api.ServerEnvironment{
		Addresses:               h.addresses(),
		Architectures:           facts.Architectures,
		Certificate:             pki.EncodeCertificate(certificate),
		CertificateFingerprint:  pki.Fingerprint(certificate),
		Driver:                  "lxc",
		DriverVersion:           h.LXCVersion,
		Firewall:                "nftables",
		Kernel:                  facts.Kernel,
		KernelArchitecture:      facts.KernelArchitecture,
		KernelFeatures:          words(h.KernelFeatures),
		KernelVersion:           facts.KernelVersion,
		LXCFeatures:             words(h.LXCFeatures),
		OSName:                  facts.OSName,
		OSVersion:               facts.OSVersion,
		Project:                 project,
		Server:                  "muster",
		ServerClustered:         h.Clustered(),
		ServerEventMode:         "full-mesh",
		ServerName:              h.Name(),
		ServerPid:               os.Getpid(),
		ServerVersion:           api.Release,
		MusterVersion:           h.Version,
		Storage:                 name,
		StorageVersion:          version,
		StorageSupportedDrivers: append([]api.ServerStorageDriverInfo{}, drivers...),
	}
}

// inUse joins the names and versions of the drivers that pools use.
func inUse(pools []*state.Pool, drivers []api.ServerStorageDriverInfo) (names, versions string) {
	used := map[string]bool{}
	for _, pool := range pools {
		used[pool.Driver] = true
	}
	var name, version []string
	for _, driver := range drivers {
		if used[driver.Name] {
			name, version = append(name, driver.Name), append(version, driver.Version)
		}
	}
	return strings.Join(name, " | "), strings.Join(version, " | ")
}

// words writes features the way clients read them.
func words(features map[string]bool) map[string]string {
	written := make(map[string]string, len(features))
	for name, there := range features {
		written[name] = "false"
		if there {
			written[name] = "true"
		}
	}
	return written
}

// addresses are the host:port pairs that the API can be reached at: an address
// that stands for all of the machine's is spelled out.
func (h Host) addresses() []string {
	listen := h.Address()
	host, port, err := net.SplitHostPort(listen)
	if listen == "" || err != nil {
		return []string{}
	}
	ip := net.ParseIP(host)
	if ip != nil && !ip.IsUnspecified() || ip == nil && host != "" {
		return []string{listen}
	}
	found := []string{}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return found
	}
	for _, address := range own {
		network, ok := address.(*net.IPNet)
		if !ok || !network.IP.IsGlobalUnicast() || ip.To4() != nil && network.IP.To4() == nil {
			continue
		}
		found = append(found, net.JoinHostPort(network.IP.String(), port))
	}
	slices.SortStableFunc(found, func(a, b string) int {
		// Clients try them in order; IPv4 first spares those without IPv6.
		return strings.Count(a, "[") - strings.Count(b, "[")
	})
	return found
}

// hardware serves /1.0/resources.
type hardware struct{ host Host }

func (x hardware) routes() []route {
	return []route{{
		pattern: "GET /1.0/resources", access: trusted, on: toTarget, handle: x.get,
		summary: "Show the hardware of the member", returns: api.Resources{}, query: []parameter{targetParameter},
		announces: []string{"resources", "resources_v2", "resources_cpu_socket", "resources_numa"},
	}}
}

func (hardware) get(*http.Request) (any, error) { return machine.Resources("/"), nil }
