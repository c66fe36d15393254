package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
)

// shown is an instance with something in every column.
func shown() api.InstanceFull {
	return api.InstanceFull{
		Instance: api.Instance{
			InstancePut: api.InstancePut{
				Architecture: "x86_64", Description: "the web", Profiles: []string{"default", "big"}, Ephemeral: true,
				Config: map[string]string{"volatile.base_image": "0123456789abcdef"},
			},
			CreatedAt: time.Date(2026, 11, 21, 1, 2, 3, 0, time.Local), Name: "web1", Status: "Running", StatusCode: api.Running,
			Location: "m1", Type: api.InstanceTypeContainer, Project: "prod",
			ExpandedConfig:  map[string]string{"user.stage": "live", "limits.memory": "1GiB", "security.privileged": "true"},
			ExpandedDevices: map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": "fast"}, "eth0": {"type": "nic", "network": "br0"}},
		},
		Snapshots: []api.InstanceSnapshot{{}, {}},
		State: &api.InstanceState{
			Pid: 42, Processes: 7, CPU: api.InstanceStateCPU{Usage: 3_500_000_000},
			Memory: api.InstanceStateMemory{Usage: 256 << 20},
			Disk:   map[string]api.InstanceStateDisk{"root": {Usage: 5 << 30}},
			Network: map[string]api.InstanceStateNetwork{
				"lo": {Type: "loopback", Addresses: []api.InstanceStateNetworkAddress{{Family: "inet", Address: "127.0.0.1", Scope: "local"}}},
				"eth1": {Type: "broadcast", Addresses: []api.InstanceStateNetworkAddress{
					{Family: "inet", Address: "10.0.10.2", Scope: "global"},
				}},
				"eth0": {Type: "broadcast", Addresses: []api.InstanceStateNetworkAddress{
					{Family: "inet", Address: "10.0.3.7", Scope: "global"},
					{Family: "inet6", Address: "fe80::1", Scope: "link"},
					{Family: "inet6", Address: "fd42::7", Scope: "global"},
				}},
			},
		},
	}
}

func TestColumns(t *testing.T) {
	for name, tc := range map[string]struct{ columns, header, row, wantErr string }{
		"the default":                   {columns: "ns46tS", header: "NAME|STATE|IPV4|IPV6|TYPE|SNAPSHOTS", row: "web1|RUNNING|10.0.3.7 (eth0)\n10.0.10.2 (eth1)|fd42::7 (eth0)|CONTAINER (EPHEMERAL)|2"},
		"figures":                       {columns: "mMDNpu", header: "MEMORY USAGE|MEMORY USAGE%|DISK USAGE|PROCESSES|PID|CPU USAGE", row: "256.00MiB|25.0%|5.00GiB|7|42|3s"},
		"origin":                        {columns: "fFbPLead", header: "BASE IMAGE|BASE IMAGE|STORAGE POOL|PROFILES|LOCATION|PROJECT|ARCHITECTURE|DESCRIPTION", row: "0123456789ab|0123456789abcdef|fast|default\nbig|m1|prod|x86_64|the web"},
		"keys of configuration":         {columns: "n,user.stage,limits.memory:MEM", header: "NAME|USER.STAGE|MEM", row: "web1|live|1GiB"},
		"keys of devices":               {columns: "devices:eth0.network:NET", header: "NET", row: "br0"},
		"an explicit kind":              {columns: "config:user.stage:S", header: "S", row: "live"},
		"a width":                       {columns: "user.stage:S:2", header: "S", row: "li"},
		"the header's width":            {columns: "user.stage:ABC:0", header: "ABC", row: "liv"},
		"an unknown letter":             {columns: "nZ", wantErr: `no column is called 'Z'`},
		"an empty one":                  {columns: "n,,s", wantErr: "a column is empty"},
		"a width that is no number":     {columns: "user.x:X:wide", wantErr: `the width "wide"`},
		"a device without a key":        {columns: "devices:eth0", wantErr: "devices:DEVICE.KEY"},
		"a key that is not there":       {columns: "user.nothing:X", header: "X", row: ""},
		"commas between letters are ok": {columns: "n,s", header: "NAME|STATE", row: "web1|RUNNING"},
	} {
		t.Run(name, func(t *testing.T) {
			columns, err := parseColumns(tc.columns)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var header, row []string
			for _, c := range columns {
				header, row = append(header, c.header), append(row, c.show(shown()))
			}
			if diff := cmp.Diff([]string{tc.header, tc.row}, []string{strings.Join(header, "|"), strings.Join(row, "|")}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A stopped instance has no state to show, and shows none.
func TestColumnsOfAStoppedInstance(t *testing.T) {
	instance := shown()
	instance.State = nil
	for letter, c := range letters {
		if got := c.show(instance); c.state && letter != 'S' && got != "" {
			t.Errorf("column %c shows %q", letter, got)
		}
	}
}

func TestFilters(t *testing.T) {
	for name, tc := range map[string]struct {
		filters []string
		want    bool
	}{
		"none":                               {nil, true},
		"the start of the name":              {[]string{"we"}, true},
		"the middle of the name":             {[]string{"eb"}, false},
		"a regular expression":               {[]string{".*b[0-9]"}, true},
		"half a regular expression":          {[]string{"web("}, false},
		"status, whatever the case":          {[]string{"status=RUNNING"}, true},
		"one status of several":              {[]string{"status=stopped,running"}, true},
		"another status":                     {[]string{"status=stopped"}, false},
		"type":                               {[]string{"type=container"}, true},
		"location and project":               {[]string{"location=m1", "project=prod"}, true},
		"a configuration key":                {[]string{"user.stage=live"}, true},
		"an abbreviated namespace":           {[]string{"u.stage=live", "s.privileged=true"}, true},
		"the key itself is not abbreviated":  {[]string{"user.st=live"}, false},
		"a regular expression as value":      {[]string{"user.stage=li.*"}, true},
		"only a part of the value":           {[]string{"user.stage=li"}, false},
		"an address":                         {[]string{"ipv4=10.0.3.7"}, true},
		"a network":                          {[]string{"ipv4=10.0.3.0/24"}, true},
		"a network written with host bits":   {[]string{"ipv4=10.0.3.9/24"}, true},
		"another network":                    {[]string{"ipv4=10.0.4.0/24"}, false},
		"one network of several":             {[]string{"ipv4=10.9.0.0/16,10.0.10.0/24"}, true},
		"an IPv6 network":                    {[]string{"ipv6=fd42::/16"}, true},
		"all have to fit":                    {[]string{"web", "status=stopped"}, false},
		"a key that the instance has not":    {[]string{"user.nothing="}, false},
		"a value that is no regular pattern": {[]string{"user.stage=("}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseFilters(tc.filters)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.all(shown()); got != tc.want {
				t.Errorf("%q: %v, want %v", tc.filters, got, tc.want)
			}
		})
	}
	if _, err := parseFilters([]string{"ipv4=10.0.0"}); err == nil {
		t.Error("half an address was accepted")
	}
	for _, filter := range []string{"state=running", "bogus=1", "=x"} {
		if _, err := parseFilters([]string{filter}); err == nil || !strings.Contains(err.Error(), "status") {
			t.Errorf("%s: %v; want an error that lists what can be asked for", filter, err)
		}
	}
}

func TestByteLimit(t *testing.T) {
	for text, want := range map[string]int64{
		"1024": 1024, "1kB": 1000, "1KiB": 1024, "512MiB": 512 << 20, "2GB": 2e9, "1TiB": 1 << 40, "7 B": 7,
		"50%": 0, "": 0, "lots": 0, "1XiB": 0, "-1GiB": 0,
	} {
		got, ok := byteLimit(text)
		if got != want || ok != (want != 0) {
			t.Errorf("byteLimit(%q) = %d, %v; want %d", text, got, ok, want)
		}
	}
}
