package state

import (
	"maps"
	"slices"
	"strings"
)

// LocalStatus says how far a pool or network is on one member.
type LocalStatus string

// What a pool or network can be on a member.
const (
	// LocalPending is defined for the member, and made when the whole is.
	LocalPending LocalStatus = "Pending"
	// LocalCreating is being made by the member.
	LocalCreating LocalStatus = "Creating"
	LocalCreated  LocalStatus = "Created"
	// LocalErrored could not be made; Message says why.
	LocalErrored LocalStatus = "Errored"
	// LocalDeleting is being removed by the member.
	LocalDeleting LocalStatus = "Deleting"
)

// Local is what a pool or network of the cluster is on one member.
type Local struct {
	Status LocalStatus
	// Config has the keys that differ from member to member.
	Config Config
	// Message says why Status is LocalErrored, or why one that is LocalCreated is not in
	// order: it is not there, or does not take its configuration over. The member tries
	// again until it is.
	Message string
}

// Unavailable reports whether it was made and is not in order now.
func (l Local) Unavailable() bool { return l.Status == LocalCreated && l.Message != "" }

// Locals are a pool or network on each member, by the member's name.
type Locals map[string]Local

// Any reports whether it has one of these statuses on some member.
func (l Locals) Any(statuses ...LocalStatus) bool {
	for _, local := range l {
		if slices.Contains(statuses, local.Status) {
			return true
		}
	}
	return false
}

// Pending reports whether it is defined for some members and made on none.
func (l Locals) Pending() bool {
	return len(l) > 0 && !l.Any(LocalCreating, LocalCreated, LocalErrored, LocalDeleting)
}

// Errored reports whether some members could not make it, and none is at it: it can be
// created once more.
func (l Locals) Errored() bool {
	return l.Any(LocalErrored) && !l.Any(LocalCreating, LocalDeleting)
}

// Ready reports whether it was made on the member.
func (l Locals) Ready(member string) bool {
	return l[member].Status == LocalCreated
}

// Works reports whether it can be used on the member now.
func (l Locals) Works(member string) bool {
	return l.Ready(member) && !l[member].Unavailable()
}

// Members are the names of the members that have it or are to have it, sorted.
func (l Locals) Members() []string { return slices.Sorted(maps.Keys(l)) }

// Status sums up how it is on all members, in the words of the LXD API.
func (l Locals) Status() string {
	switch {
	case l.Any(LocalErrored):
		return "Errored"
	case l.Any(LocalPending, LocalCreating, LocalDeleting):
		return "Pending"
	}
	for _, local := range l {
		if local.Unavailable() {
			return "Unavailable"
		}
	}
	return "Created"
}

// poolLocalKeys and networkLocalKeys are what differs from member to member; keys that
// end in a dot stand for all that begin so.
var (
	poolLocalKeys    = []string{"source", "size", "volatile."}
	networkLocalKeys = []string{"bridge.external_interfaces", "volatile."}
)

func hasKey(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(k string) bool {
		return k == key || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k)
	})
}

// PoolLocalKey reports whether a pool's configuration key differs from member to
// member.
func PoolLocalKey(key string) bool { return hasKey(poolLocalKeys, key) }

// NetworkLocalKey reports whether a network's configuration key differs from member to
// member.
func NetworkLocalKey(key string) bool { return hasKey(networkLocalKeys, key) }

// SplitConfig parts a configuration into what holds for the whole cluster and what is
// one member's.
func SplitConfig(config Config, isLocal func(key string) bool) (whole, local Config) {
	whole, local = Config{}, Config{}
	for key, value := range config {
		if isLocal(key) {
			local[key] = value
		} else {
			whole[key] = value
		}
	}
	return whole, local
}

// localConfig lays what is one member's over what holds for the cluster.
func localConfig(whole, local Config, isLocal func(key string) bool) Config {
	config, _ := SplitConfig(whole, isLocal)
	for key, value := range local {
		if isLocal(key) {
			config[key] = value
		}
	}
	return config
}

// On is the pool as it is on the member.
func (p *Pool) On(member string) Pool {
	on := *p
	on.Memo = nil
	on.Config = localConfig(p.Config, p.Locals[member].Config, PoolLocalKey)
	return on
}

// On is the network as it is on the member.
func (n *Network) On(member string) Network {
	on := *n
	on.Memo = nil
	on.Config = localConfig(n.Config, n.Locals[member].Config, NetworkLocalKey)
	return on
}
