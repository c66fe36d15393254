package state

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestDevices(t *testing.T) {
	type device = map[string]string
	for name, tc := range map[string]struct {
		device device
		want   string // after `device "d": `
	}{
		"a root disk":                       {device{"type": "disk", "path": "/", "pool": "default", "size": "10GiB"}, "<nil>"},
		"a directory of the host":           {device{"type": "disk", "source": "/srv", "path": "/mnt", "readonly": "true", "propagation": "rslave"}, "<nil>"},
		"a nic on a network":                {device{"type": "nic", "network": "br0", "name": "eth0", "ipv4.address": "10.0.0.9", "boot.priority": "1"}, "<nil>"},
		"a nic on a bridge":                 {device{"type": "nic", "nictype": "bridged", "parent": "br0", "hwaddr": "00:16:3e:01:02:03", "mtu": "9000"}, "<nil>"},
		"a macvlan":                         {device{"type": "nic", "nictype": "macvlan", "parent": "eth0"}, "<nil>"},
		"a pair":                            {device{"type": "nic", "nictype": "p2p", "host_name": "c1"}, "<nil>"},
		"a character device":                {device{"type": "unix-char", "path": "/dev/fuse", "mode": "0666", "uid": "1000"}, "<nil>"},
		"a block device by number":          {device{"type": "unix-block", "path": "/dev/x", "major": "8", "minor": "1"}, "<nil>"},
		"nothing, to hide a profile's":      {device{"type": "none"}, "<nil>"},
		"a proxy":                           {device{"type": "proxy", "listen": "tcp:127.0.0.1:8080", "connect": "tcp:127.0.0.1:80"}, "<nil>"},
		"a proxy of a range":                {device{"type": "proxy", "listen": "tcp:[::]:8000-8009", "connect": "tcp:127.0.0.1:8000-8009"}, "<nil>"},
		"a proxy of a range to one port":    {device{"type": "proxy", "listen": "udp:0.0.0.0:53,5353", "connect": "udp:127.0.0.1:53"}, "<nil>"},
		"a proxy of sockets":                {device{"type": "proxy", "bind": "instance", "listen": "unix:/run/x", "connect": "unix:@y", "mode": "0660", "uid": "0"}, "<nil>"},
		"notes of the user's":               {device{"type": "none", "user.note": "mine"}, "<nil>"},
		"no type":                           {device{"path": "/"}, `"type" is missing: want disk, nic, none, proxy, unix-block or unix-char`},
		"a misspelt type":                   {device{"type": "dsik"}, `unknown type "dsik": did you mean "disk"?`},
		"a type of LXD that is not built":   {device{"type": "gpu"}, `devices of type "gpu" are not supported by muster: use disk, nic, none, proxy, unix-block or unix-char`},
		"a misspelt option":                 {device{"type": "disk", "path": "/", "pool": "default", "readonyl": "1"}, `unknown option "readonyl": did you mean "readonly"?`},
		"an option of LXD that isn't built": {device{"type": "nic", "network": "br0", "security.mac_filtering": "true"}, `option "security.mac_filtering" is not supported by muster: leave it out`},
		"an option of another type":         {device{"type": "none", "path": "/"}, `unknown option "path"`},
		"a value of two lines":              {device{"type": "disk", "source": "/srv\n/etc", "path": "/mnt"}, `option "source": its value has a line break or another control character; take that away`},
		"a disk without a place":            {device{"type": "disk", "source": "/srv"}, `"path" is missing: say where in the instance`},
		"a disk without a source":           {device{"type": "disk", "path": "/mnt"}, `"source" is missing: give a path on the host`},
		"a disk that leads out":             {device{"type": "disk", "source": "/srv", "path": "/mnt/../../etc"}, `option "path": "/mnt/../../etc": want an absolute path without ".."`},
		"a disk at a relative place":        {device{"type": "disk", "source": "/srv", "path": "mnt"}, `option "path": "mnt": want an absolute path`},
		"a volume as a disk":                {device{"type": "disk", "pool": "default", "source": "/v", "path": "/mnt"}, `"pool": custom volumes are not supported as devices yet; give a "source" on the host`},
		"a limited directory":               {device{"type": "disk", "source": "/srv", "path": "/mnt", "size": "1GiB"}, `"size" is for the root disk only`},
		"a root disk with a source":         {device{"type": "disk", "source": "/srv", "path": "/"}, `the root disk (path "/") has no "source": leave it out`},
		"a root disk written oddly":         {device{"type": "disk", "path": "//", "pool": "default"}, `"path" "//": write "/" for the root disk`},
		"a root disk nobody may write":      {device{"type": "disk", "path": "/", "pool": "default", "readonly": "true"}, `"readonly" is not for the root disk (path "/"): leave it out`},
		"a size with a bad unit":            {device{"type": "disk", "path": "/", "pool": "default", "size": "10Gb"}, `option "size": size "10Gb": unknown unit "Gb"; use B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB or EiB`},
		"a nic on nothing":                  {device{"type": "nic"}, `name a "network", or give a "nictype" (bridged, macvlan, p2p)`},
		"a nic on two things":               {device{"type": "nic", "network": "br0", "parent": "br1"}, `"network" already says how it is attached: leave out "nictype" and "parent"`},
		"a bridge without a name":           {device{"type": "nic", "nictype": "bridged"}, `"parent" is missing: name the interface of the host that nictype bridged attaches to`},
		"a kind of nic that isn't built":    {device{"type": "nic", "nictype": "sriov", "parent": "eth0"}, `option "nictype": "sriov": want bridged, macvlan, p2p`},
		"a pair with a parent":              {device{"type": "nic", "nictype": "p2p", "parent": "eth0"}, `nictype p2p has no "parent": leave it out`},
		"an address that nobody hands out":  {device{"type": "nic", "nictype": "macvlan", "parent": "eth0", "ipv4.address": "10.0.0.2"}, `addresses are handed out by managed networks only: leave out ipv4.address and ipv6.address`},
		"an address of the other family":    {device{"type": "nic", "network": "br0", "ipv4.address": "fd42::1"}, `option "ipv4.address": "fd42::1" is not an IPv4 address`},
		"an address with a zone":            {device{"type": "nic", "network": "br0", "ipv6.address": "fe80::1%eth0"}, `option "ipv6.address": "fe80::1%eth0" is not an IPv6 address`},
		"a hardware address of a group":     {device{"type": "nic", "network": "br0", "hwaddr": "01:16:3e:00:00:01"}, `option "hwaddr": "01:16:3e:00:00:01" is not the address of one interface: make its first byte even, and not all of it zero`},
		"a hardware address too short":      {device{"type": "nic", "network": "br0", "hwaddr": "00:16:3e"}, `option "hwaddr": "00:16:3e": want a hardware address such as 00:16:3e:12:34:56`},
		"an interface name too long":        {device{"type": "nic", "network": "br0", "name": "averyveryverylongname"}, `option "name": name "averyveryverylongnam"… has 21 characters: use 15 at most`},
		"a device that is nowhere":          {device{"type": "unix-char"}, `"source" and "path" are missing: give one`},
		"half a device number":              {device{"type": "unix-char", "path": "/dev/x", "major": "1"}, `"major" and "minor" go together: give both or neither`},
		"a mode that is not octal":          {device{"type": "unix-char", "path": "/dev/x", "mode": "0999"}, `option "mode": "0999": want octal permission bits such as 0660`},
		"a proxy that listens nowhere":      {device{"type": "proxy", "connect": "tcp:127.0.0.1:80"}, `"listen" is missing: want tcp:ADDRESS:PORT or unix:PATH`},
		"a proxy without a port":            {device{"type": "proxy", "listen": "tcp:80", "connect": "tcp:127.0.0.1:80"}, `option "listen": "tcp:80": the port is missing`},
		"a proxy on port zero":              {device{"type": "proxy", "listen": "tcp:0.0.0.0:0", "connect": "tcp:127.0.0.1:80"}, `option "listen": "tcp:0.0.0.0:0": "0" is not a port or a range of ports`},
		"a proxy of unequal ranges":         {device{"type": "proxy", "listen": "tcp:0.0.0.0:80-82", "connect": "tcp:127.0.0.1:80-81"}, `"listen" has 3 ports and "connect" has 2: give as many, or one to connect to`},
		"a proxy on a bare IPv6 address":    {device{"type": "proxy", "listen": "tcp:::1:80", "connect": "tcp:127.0.0.1:80"}, `option "listen": "tcp:::1:80": write an IPv6 address in brackets, such as tcp:[::1]:80`},
		"a proxy on a name":                 {device{"type": "proxy", "listen": "tcp:localhost:80", "connect": "tcp:127.0.0.1:80"}, `option "listen": "localhost" is not an IP address`},
		"a proxy from udp to tcp":           {device{"type": "proxy", "listen": "udp:0.0.0.0:53", "connect": "tcp:127.0.0.1:53"}, `udp can only be passed on to udp`},
		"a proxy in the kernel":             {device{"type": "proxy", "nat": "true"}, `option "nat": forwarding in the kernel is not built: connections are passed on by a helper: leave it out or set it to false`},
		"an owner of a port":                {device{"type": "proxy", "listen": "tcp:0.0.0.0:80", "connect": "tcp:127.0.0.1:80", "uid": "1"}, `"uid" is for a socket in the file system (unix:/path) to listen on: leave it out`},
		"addresses ahead on a socket":       {device{"type": "proxy", "listen": "unix:/run/x", "connect": "tcp:127.0.0.1:80", "proxy_protocol": "1"}, `"proxy_protocol" is for tcp on both sides`},
	} {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want != "<nil>" {
				want = `device "d": ` + want
			}
			for _, profile := range []bool{false, true} {
				wantError(t, name, ValidateDevices(Devices{"d": tc.device}, profile), want)
			}
		})
	}
}

func TestDevicesThatClash(t *testing.T) {
	root := map[string]string{"type": "disk", "path": "/", "pool": "default"}
	for name, tc := range map[string]struct {
		devices Devices
		profile bool
		want    string
	}{
		"two root disks": {Devices{"a": root, "b": root}, false, `2 devices are mounted at "/": an instance has one root disk`},
		"two root disks in a profile": {
			Devices{"a": root, "b": root}, true, `2 devices are mounted at "/": a profile has one root disk`,
		},
		"two disks at one place": {Devices{
			"a": {"type": "disk", "source": "/a", "path": "/mnt"}, "b": {"type": "disk", "source": "/b", "path": "/mnt/"},
		}, false, `devices "a" and "b" have the same path "/mnt"`},
		"a disk and a device at one place": {Devices{
			"a": {"type": "disk", "source": "/a", "path": "/dev/x"}, "b": {"type": "unix-char", "source": "/dev/x"},
		}, false, `devices "a" and "b" have the same path "/dev/x"`},
		"two interfaces of one name": {Devices{
			"a": {"type": "nic", "network": "br0", "name": "eth0"}, "b": {"type": "nic", "network": "br0", "name": "eth0"},
		}, false, `devices "a" and "b" have the same name "eth0"`},
		"two interfaces of one hardware address": {Devices{
			"a": {"type": "nic", "network": "br0", "hwaddr": "00:16:3e:00:00:0a"}, "b": {"type": "nic", "network": "br0", "hwaddr": "00:16:3E:00:00:0A"},
		}, false, `devices "a" and "b" have the same hwaddr "00:16:3e:00:00:0a"`},
		"two interfaces with one address": {Devices{
			"a": {"type": "nic", "network": "br0", "ipv4.address": "10.0.0.9"}, "b": {"type": "nic", "nictype": "bridged", "parent": "br0", "ipv4.address": "10.0.0.9"},
		}, false, `devices "a" and "b" have the same ipv4.address on br0 "10.0.0.9"`},
		"one address on two networks": {Devices{
			"a": {"type": "nic", "network": "br0", "ipv4.address": "10.0.0.9"}, "b": {"type": "nic", "network": "br1", "ipv4.address": "10.0.0.9"},
		}, false, "<nil>"},
		"several interfaces without names": {Devices{
			"a": {"type": "nic", "network": "br0"}, "b": {"type": "nic", "network": "br0"}, "root": root,
		}, false, "<nil>"},
		"a device with a bad name": {Devices{"a/b": root}, false, `device name "a/b": '/' is not allowed; use letters, digits, hyphens, dots and underscores`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, name, ValidateDevices(tc.devices, tc.profile), tc.want) })
	}
}

// Whatever is accepted stays within the instance and on one line.
func FuzzDevices(f *testing.F) {
	for _, seed := range [][3]string{
		{"disk", "path", "/mnt/../x"},
		{"disk", "source", "a\nb"},
		{"nic", "ipv6.address", "fe80::1%\n"},
		{"proxy", "listen", "tcp:[::1]:1-2,3"},
		{"proxy", "connect", "unix:@"},
		{"unix-char", "mode", "7777"},
		{"none", "user.a", "b"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	complete := map[string]map[string]string{
		"disk":      {"path": "/mnt", "source": "/srv"},
		"nic":       {"network": "br0"},
		"unix-char": {"path": "/dev/x"}, "unix-block": {"path": "/dev/x"},
		"proxy": {"listen": "unix:/a", "connect": "unix:/b"},
	}
	f.Fuzz(func(t *testing.T, kind, option, value string) {
		device := map[string]string{"type": kind}
		maps.Copy(device, complete[kind])
		device[option] = value
		err := ValidateDevices(Devices{"d": device}, false)
		switch {
		case err != nil && (!errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00")):
			t.Errorf("%v: %q is not a plain sentence of kind ErrInvalid", device, err)
		case err == nil && !strings.HasPrefix(option, "user.") && strings.ContainsAny(value, "\n\r\x00"):
			t.Errorf("%v passes", device)
		case err == nil && option == "path" && strings.Contains("/"+value+"/", "/../"):
			t.Errorf("%v passes", device)
		}
	})
}
