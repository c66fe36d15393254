package state

import "testing"

func TestServerConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"what people set": {Config{
			"core.https_address": "[::]:8443", "core.trust_password": "sesame", "core.shutdown_timeout": "10",
			"images.compression_algorithm": "zstd", "user.note": "mine",
		}, "<nil>"},
		"a misspelt key":                 {Config{"core.http_address": ":1"}, `unknown server key "core.http_address": did you mean "core.https_address"?`},
		"a key of LXD that is not built": {Config{"core.proxy_http": "http://x"}, `server key "core.proxy_http" is not supported by muster: leave it out`},
		"a bad number":                   {Config{"core.shutdown_timeout": "soon"}, `server key "core.shutdown_timeout": "soon": want a whole number from 0 to 1440`},
		"a bad compression":              {Config{"images.compression_algorithm": "zip"}, `server key "images.compression_algorithm": unknown compression algorithm "zip": use gzip, xz, zstd, bzip2, lzma or none`},
		"an address of two lines":        {Config{"core.https_address": ":1\n:2"}, `server key "core.https_address": its value has a line break or another control character; take that away`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, name, ValidateServerConfig(tc.config), tc.want) })
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
