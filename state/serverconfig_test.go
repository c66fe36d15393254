package state

import (
	"maps"
	"slices"
	"testing"
)

func TestServerConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"what people set": {Config{
			"core.https_address": "[::]:8443", "core.trust_password": "sesame", "core.shutdown_timeout": "10",
			"images.compression_algorithm": "zstd", "user.note": "mine",
		}, "<nil>"},
		"a misspelt key":                     {Config{"core.http_address": ":1"}, `unknown server key "core.http_address": did you mean "core.https_address"?`},
		"a key that LXD 5.0.2 does not know": {Config{"instances.nic.host_name": "mac"}, `server key "instances.nic.host_name" is not supported by muster: leave it out`},
		"an inert key with a bad number":     {Config{"images.auto_update_interval": "often"}, `server key "images.auto_update_interval": "often": want a whole number`},
		"an inert key with a bad truth":      {Config{"core.https_allowed_credentials": "maybe"}, `server key "core.https_allowed_credentials": "maybe" is not a truth value: want true or false`},
		"a life of tokens that is none":      {Config{"cluster.join_token_expiry": "zz"}, `server key "cluster.join_token_expiry": expiry "zz": "zz" is not a number with a unit, such as 3d`},
		"a bad number":                       {Config{"core.shutdown_timeout": "soon"}, `server key "core.shutdown_timeout": "soon": want a whole number from 0 to 1440`},
		"a bad compression":                  {Config{"images.compression_algorithm": "zip"}, `server key "images.compression_algorithm": unknown compression algorithm "zip": use gzip, xz, zstd, bzip2, lzma or none`},
		"an address of two lines":            {Config{"core.https_address": ":1\n:2"}, `server key "core.https_address": its value has a line break or another control character; take that away`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, name, ValidateServerConfig(tc.config), tc.want) })
	}
}

// Whatever LXD 5.0.2 was seen to store is stored, and what has no effect says so.
func TestServerKeysOfLXD(t *testing.T) {
	effective := Config{
		"core.https_address": ":8443", "core.trust_password": "sesame", "core.shutdown_timeout": "3", "core.remote_token_expiry": "1d",
		"cluster.join_token_expiry": "3H", "cluster.images_minimal_replica": "-1", "cluster.max_standby": "2", "cluster.max_voters": "3",
		"cluster.offline_threshold": "20", "images.compression_algorithm": "gzip -9", "user.foo": "bar",
	}
	inert := Config{
		"backups.compression_algorithm": "xz", "candid.api.key": "k", "candid.api.url": "https://x", "candid.domains": "a", "candid.expiry": "1",
		"cluster.https_address": "10.66.0.1:8443", "core.bgp_address": "10.66.0.1:179", "core.bgp_asn": "64512", "core.bgp_routerid": "10.66.0.1",
		"core.debug_address": "127.0.0.1:8444", "core.dns_address": "10.66.0.1:53", "core.https_allowed_credentials": "true", "core.https_allowed_headers": "X",
		"core.https_allowed_methods": "GET", "core.https_allowed_origin": "*", "core.https_trusted_proxy": "10.0.0.1", "core.metrics_address": "10.66.0.1:8445",
		"core.metrics_authentication": "false", "core.proxy_http": "http://x:1", "core.proxy_https": "http://x:1", "core.proxy_ignore_hosts": "a,b",
		"core.trust_ca_certificates": "true", "images.auto_update_cached": "false", "images.auto_update_interval": "-1", "images.default_architecture": "x86_64",
		"images.remote_cache_expiry": "5", "maas.api.key": "k", "maas.api.url": "http://x", "maas.machine": "abc", "network.ovn.integration_bridge": "br-x",
		"network.ovn.northbound_connection": "unix:/x", "rbac.agent.private_key": "k", "rbac.agent.public_key": "k", "rbac.agent.url": "http://x",
		"rbac.agent.username": "u", "rbac.api.expiry": "5", "rbac.api.key": "k", "rbac.api.url": "http://x", "storage.backups_volume": "a/b", "storage.images_volume": "a/b",
	}
	all := Config{}
	maps.Copy(all, effective)
	maps.Copy(all, inert)
	if err := ValidateServerConfig(all); err != nil {
		t.Error(err)
	}
	if got, want := InertServerKeys(all), slices.Sorted(maps.Keys(inert)); !slices.Equal(got, want) {
		t.Errorf("without effect are %q; want %q", got, want)
	}
}

func TestOnlyTheAddressBelongsToOneMember(t *testing.T) {
	for key, want := range map[string]bool{
		"core.https_address": true, "core.trust_password": false, "user.a": false, "unheard.of": false,
	} {
		if got := MemberScoped(key); got != want {
			t.Errorf("MemberScoped(%q) = %v; want %v", key, got, want)
		}
	}
}

func TestStorageDrivers(t *testing.T) {
	for name, tc := range map[string]struct{ driver, want string }{
		"the default":                       {PoolDrivers[0], "<nil>"},
		"a directory":                       {"dir", "<nil>"},
		"btrfs":                             {"btrfs", "<nil>"},
		"a driver of LXD that is not built": {"zfs", `driver "zfs" is not supported by muster: use overlay, dir or btrfs`},
		"a misspelt driver":                 {"btrsf", `unknown driver "btrsf": did you mean "btrfs"?`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, tc.driver, ValidatePoolDriver(tc.driver), tc.want) })
	}
}
