package state

import (
	"net/netip"
	"strings"
)

// serverKeys are the configuration keys of the server: of the whole cluster, or
// of one member.
var serverKeys = table{
	what: "server key",
	keys: append([]Key{
		{Name: "core.https_address", Help: "address and port of this member's API; empty serves this machine only", Member: true},
		{Name: "core.trust_password", Help: "lets a client in that shows it; shown as true once set"},
		{Name: "core.shutdown_timeout", Help: "minutes running operations may take when the daemon stops", Default: "5", check: aNumber(0, 1440)},
		{Name: "cluster.max_standby", Help: "members that hold the database without a vote", Default: "2", check: aNumber(0, 5)},
		{Name: "cluster.max_voters", Help: "members that vote on the database", Default: "3", check: oneOf("1", "3", "5", "7")},
		{Name: "cluster.offline_threshold", Help: "seconds after which a member that answers nobody is offline", Default: "2", check: aNumber(1, 3600)},
		{Name: "cluster.images_minimal_replica", Help: "members that keep each image; -1 is all", Default: "3", check: allOr(aNumber(1, 100))},
		{Name: "cluster.virtual_address", Help: "address/prefix that one online member holds, for clients that know one endpoint", check: aPrefix},
		{Name: "cluster.virtual_address.interface", Help: "interface of this member that takes it; empty is the one with this member's own address", Member: true},
		{Name: "images.compression_algorithm", Help: "compression of published images, with options such as \"gzip --rsyncable\"", Default: "gzip", check: compression},
		{Name: "cluster.join_token_expiry", Help: "how long a join token is good for, such as 3H", Default: "3H", check: aDuration},
		{Name: "core.remote_token_expiry", Help: "how long a token for a client is good for, such as 1d", Default: "1d", check: aDuration},
		{Name: "user.", Help: "anything you like", lines: true},
	}, inertServerKeys...),
	missing: []string{
		"cluster.fence_after", "cluster.heal", "cluster.healing_threshold", "cluster.network_latency", "core.storage_buckets_address", "core.syslog_socket", "instances.", "loki.", "network.", "storage.",
	},
}

// inertServerKeys are those of LXD 5.0.2 that have no effect in muster yet. They are stored,
// because preseeds and provisioning tools carry them, and whoever sets one is told.
var inertServerKeys = inert([]Key{
	{Name: "backups.compression_algorithm", Help: "compression of backups", Default: "gzip", check: compression},
	{Name: "candid.api.key", Help: "public key of the Candid server"},
	{Name: "candid.api.url", Help: "URL of a Candid server that authenticates clients"},
	{Name: "candid.domains", Help: "Candid domains that are allowed"},
	{Name: "candid.expiry", Help: "seconds that a Candid macaroon lasts", Default: "3600", check: anInteger},
	{Name: "cluster.https_address", Help: "address for the other members: here they use core.https_address", Member: true},
	{Name: "core.bgp_address", Help: "address that the BGP server listens on", Member: true},
	{Name: "core.bgp_asn", Help: "BGP autonomous system number", check: anInteger},
	{Name: "core.bgp_routerid", Help: "BGP identifier of this member", Member: true},
	{Name: "core.debug_address", Help: "address of the profiling server", Member: true},
	{Name: "core.dns_address", Help: "address of the authoritative DNS server", Member: true},
	{Name: "core.https_allowed_credentials", Help: "Access-Control-Allow-Credentials of answers", check: aBool},
	{Name: "core.https_allowed_headers", Help: "Access-Control-Allow-Headers of answers"},
	{Name: "core.https_allowed_methods", Help: "Access-Control-Allow-Methods of answers"},
	{Name: "core.https_allowed_origin", Help: "Access-Control-Allow-Origin of answers"},
	{Name: "core.https_trusted_proxy", Help: "servers that tell the client's address by the proxy protocol"},
	{Name: "core.metrics_address", Help: "address of the metrics server"},
	{Name: "core.metrics_authentication", Help: "whether metrics are for trusted clients only", Default: "true", check: aBool},
	{Name: "core.proxy_http", Help: "proxy for HTTP"},
	{Name: "core.proxy_https", Help: "proxy for HTTPS"},
	{Name: "core.proxy_ignore_hosts", Help: "hosts that need no proxy"},
	{Name: "core.trust_ca_certificates", Help: "whether clients whose certificate the authority signed are trusted", check: aBool},
	{Name: "images.auto_update_cached", Help: "whether cached images are kept up to date", Default: "true", check: aBool},
	{Name: "images.auto_update_interval", Help: "hours between looks for newer images", Default: "6", check: anInteger},
	{Name: "images.default_architecture", Help: "architecture of images where members differ"},
	{Name: "images.remote_cache_expiry", Help: "days that an unused cached image is kept", Default: "10", check: anInteger},
	{Name: "maas.api.key", Help: "API key of a MAAS server"},
	{Name: "maas.api.url", Help: "URL of a MAAS server"},
	{Name: "maas.machine", Help: "name of this member in MAAS", Member: true},
	{Name: "network.ovn.integration_bridge", Help: "bridge for OVN networks", Default: "br-int"},
	{Name: "network.ovn.northbound_connection", Help: "database of OVN"},
	{Name: "rbac.agent.private_key", Help: "private key of the Candid agent for RBAC"},
	{Name: "rbac.agent.public_key", Help: "public key of the Candid agent for RBAC"},
	{Name: "rbac.agent.url", Help: "URL of the Candid agent for RBAC"},
	{Name: "rbac.agent.username", Help: "name of the Candid agent for RBAC"},
	{Name: "rbac.api.expiry", Help: "seconds that an RBAC macaroon lasts", check: anInteger},
	{Name: "rbac.api.key", Help: "public key of the RBAC server"},
	{Name: "rbac.api.url", Help: "URL of an RBAC server"},
	{Name: "storage.backups_volume", Help: "volume that backups are kept on, as POOL/VOLUME", Member: true},
	{Name: "storage.images_volume", Help: "volume that images are kept on, as POOL/VOLUME", Member: true},
})

func inert(keys []Key) []Key {
	for i := range keys {
		keys[i].Inert = true
	}
	return keys
}

// InertServerKeys are those of the keys that have no effect yet, in order.
func InertServerKeys(config Config) []string {
	var names []string
	for _, name := range sortedNames(config) {
		if key, known := serverKeys.find(name); known && key.Inert {
			names = append(names, name)
		}
	}
	return names
}

// HiddenPrefix begins the names of settings that are the cluster's own: nobody is shown
// them, and nobody sets them through the server's configuration.
const HiddenPrefix = "volatile."

// HiddenSetting reports whether a setting is the cluster's own.
func HiddenSetting(key string) bool { return strings.HasPrefix(key, HiddenPrefix) }

// aPrefix checks for an address that a machine can have, with the size of its network.
func aPrefix(value string) error {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || prefix.Addr().Is4In6() || prefix.Addr().IsUnspecified() || prefix.Addr().IsLoopback() || prefix.Addr().IsMulticast() || prefix.Bits() == 0 {
		return Errorf(ErrInvalid, "want an address of the members' network with the size of that network, such as 192.0.2.10/24")
	}
	return nil
}

// ServerKeys lists the keys of the server configuration.
func ServerKeys() []Key { return serverKeys.keys }

// ValidateServerConfig checks keys of the server configuration.
func ValidateServerConfig(config Config) error { return serverKeys.validateAll(config) }

// MemberScoped reports whether a server key belongs to one member rather than to
// the whole cluster.
func MemberScoped(key string) bool {
	found, ok := serverKeys.find(key)
	return ok && found.Member
}

// memberKeys are the configuration keys of a cluster member.
var memberKeys = table{
	what: "member key",
	keys: []Key{
		{Name: "scheduler.instance", Help: "which new instances it takes: all; group, those that target one of its groups; manual, those that target it", Default: "all", check: oneOf("all", "group", "manual")},
		{Name: "user.", Help: "anything you like", lines: true},
	},
}

// ValidateMemberConfig checks keys of a cluster member.
func ValidateMemberConfig(config Config) error { return memberKeys.validateAll(config) }
