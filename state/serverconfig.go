package state

import (
	"slices"
	"strings"
)

var serverKeys = table{
	what: "server key",
	keys: []Key{
		{Name: "core.https_address", Help: "address and port of this member's API; empty serves this machine only", Member: true},
		{Name: "core.trust_password", Help: "lets a client in that shows it; shown as true once set"},
		{Name: "core.shutdown_timeout", Help: "minutes running operations may take when the daemon stops", Default: "5", check: aNumber(0, 1440)},
		{Name: "images.compression_algorithm", Help: "compression of published images", Default: "gzip", check: oneOf("gzip", "zstd", "xz", "bzip2", "none")},
		{Name: "images.default_architecture", Help: "architecture meant when several fit"},
		{Name: "user.", Help: "anything you like"},
	},
	missing: []string{
		"backups.", "candid.", "cluster.", "core.bgp_", "core.debug_address", "core.dns_address", "core.https_allowed_credentials", "core.https_allowed_headers",
		"core.https_allowed_methods", "core.https_allowed_origin", "core.https_trusted_proxy", "core.metrics_address", "core.metrics_authentication",
		"core.proxy_http", "core.proxy_https", "core.proxy_ignore_hosts", "core.remote_token_expiry", "core.storage_buckets_address",
		"core.trust_ca_certificates", "images.auto_update_cached", "images.auto_update_interval", "images.remote_cache_expiry", "instances.",
		"loki.", "maas.", "network.", "rbac.", "storage.",
	},
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

var networkKeys = table{
	what: "network key",
	keys: []Key{
		{Name: "bridge.hwaddr", Help: "hardware address of the bridge", check: aHWAddr},
		{Name: "bridge.mtu", Help: "maximum transfer unit", Default: "1500", check: aNumber(1280, 65535)},
		{Name: "bridge.driver", Help: "only native bridges are built", Default: "native", check: oneOf("native")},
		{Name: "bridge.external_interfaces", Help: "unused interfaces of the host to put into the bridge", check: listOf(func(v string) error { return ValidateInterfaceName("interface", v) })},
		{Name: "dns.domain", Help: "domain of the instances' names", Default: "lxd"},
		{Name: "dns.mode", Help: "whether instances have names", Default: "managed", check: oneOf("managed", "dynamic", "none")},
		{Name: "ipv4.address", Help: "address of the bridge with its prefix; auto or none", Default: "auto", check: autoOr(aPrefix4)},
		{Name: "ipv4.dhcp", Help: "hand out addresses", Default: "true", check: aBool},
		{Name: "ipv4.dhcp.expiry", Help: "how long a lease holds", Default: "1h"},
		{Name: "ipv4.dhcp.gateway", Help: "gateway to announce", Default: "the bridge", check: anIPv4},
		{Name: "ipv4.dhcp.ranges", Help: "addresses to hand out, FIRST-LAST", Default: "all", check: listOf(aRange)},
		{Name: "ipv4.firewall", Help: "make rules that let the instances through", Default: "true", check: aBool},
		{Name: "ipv4.nat", Help: "hide the instances behind the host's address", Default: "true", check: aBool},
		{Name: "ipv4.routing", Help: "route to and from the bridge", Default: "true", check: aBool},
		{Name: "ipv6.address", Help: "address of the bridge with its prefix; auto or none", Default: "auto", check: autoOr(aPrefix6)},
		{Name: "ipv6.dhcp", Help: "hand out addresses", Default: "true", check: aBool},
		{Name: "ipv6.dhcp.expiry", Help: "how long a lease holds", Default: "1h"},
		{Name: "ipv6.dhcp.ranges", Help: "addresses to hand out, FIRST-LAST", Default: "all", check: listOf(aRange)},
		{Name: "ipv6.dhcp.stateful", Help: "hand out addresses by DHCPv6", Default: "false", check: aBool},
		{Name: "ipv6.firewall", Help: "make rules that let the instances through", Default: "true", check: aBool},
		{Name: "ipv6.nat", Help: "hide the instances behind the host's address", Default: "false", check: aBool},
		{Name: "ipv6.routing", Help: "route to and from the bridge", Default: "true", check: aBool},
		{Name: "raw.dnsmasq", Help: "lines added to dnsmasq's configuration"},
		{Name: "user.", Help: "anything you like"},
		{Name: "volatile.", Help: "kept by the server"},
	},
	missing: []string{
		"bgp.", "bridge.mode", "fan.", "ipv4.nat.address", "ipv4.nat.order", "ipv4.ovn.ranges", "ipv4.routes",
		"ipv6.nat.address", "ipv6.nat.order", "ipv6.ovn.ranges", "ipv6.routes", "dns.search", "dns.zone.", "maas.", "security.acls", "security.acls.", "tunnel.",
	},
}

// NetworkKeys lists the keys of managed networks.
func NetworkKeys() []Key { return networkKeys.keys }

// ValidateNetworkConfig checks the configuration of a managed bridge.
func ValidateNetworkConfig(config Config) error { return networkKeys.validateAll(config) }

func autoOr(check func(string) error) func(string) error {
	return func(value string) error {
		if value == "auto" || value == "none" {
			return nil
		}
		return check(value)
	}
}

func aPrefix4(value string) error {
	if strings.Contains(value, ":") {
		return Errorf(ErrInvalid, "%q: want an IPv4 address with a prefix length, such as 10.1.2.1/24", value)
	}
	return aPrefix(value)
}

func aPrefix6(value string) error {
	if !strings.Contains(value, ":") {
		return Errorf(ErrInvalid, "%q: want an IPv6 address with a prefix length, such as fd42:1::1/64", value)
	}
	return aPrefix(value)
}

func aRange(value string) error {
	first, last, ok := strings.Cut(value, "-")
	if !ok || anAddress(first) != nil || anAddress(last) != nil {
		return Errorf(ErrInvalid, "%q: want FIRST-LAST, two addresses", value)
	}
	return nil
}

// PoolDrivers are the storage drivers, the default first.
var PoolDrivers = []string{"overlay", "dir", "btrfs"}

// ValidatePoolDriver says whether a storage driver exists.
func ValidatePoolDriver(driver string) error {
	switch {
	case slices.Contains(PoolDrivers, driver):
		return nil
	case slices.Contains([]string{"zfs", "lvm", "ceph", "cephfs", "cephobject", "powerflex"}, driver):
		return Errorf(ErrInvalid, "driver %q is not supported by muster: use overlay, dir or btrfs", driver)
	}
	return unknown("driver", driver, PoolDrivers)
}
