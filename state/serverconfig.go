package state

import (
	"net/netip"
	"strings"
)

// serverKeys are the configuration keys of the server: of the whole cluster, or
// of one member.
var serverKeys = table{
	what: "server key",
	keys: []Key{
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
		{Name: "user.", Help: "anything you like", lines: true},
	},
	missing: []string{
		"backups.", "candid.", "cluster.fence_after", "cluster.heal", "cluster.healing_threshold", "cluster.https_address",
		"cluster.join_token_expiry", "cluster.network_latency", "core.bgp_", "core.debug_address", "core.dns_address", "core.https_allowed_credentials", "core.https_allowed_headers",
		"core.https_allowed_methods", "core.https_allowed_origin", "core.https_trusted_proxy", "core.metrics_address", "core.metrics_authentication",
		"core.proxy_http", "core.proxy_https", "core.proxy_ignore_hosts", "core.remote_token_expiry", "core.storage_buckets_address",
		"core.trust_ca_certificates", "images.auto_update_cached", "images.auto_update_interval", "images.default_architecture", "images.remote_cache_expiry", "instances.",
		"loki.", "maas.", "network.", "rbac.", "storage.",
	},
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
