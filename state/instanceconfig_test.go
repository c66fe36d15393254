package state

import (
	"errors"
	"strings"
	"testing"
)

func TestInstanceConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"nothing": {nil, "<nil>"},
		"what people set": {Config{
			"boot.autostart": "true", "boot.autostart.delay": "5", "boot.autostart.priority": "-3", "boot.host_shutdown_timeout": "60", "boot.stop.priority": "1",
			"cloud-init.user-data": "#cloud-config\npackages: [vim]\n", "cluster.evacuate": "stop", "environment.LANG": "C.UTF-8",
			"limits.cpu": "2", "limits.cpu.allowance": "50%", "limits.cpu.priority": "5", "limits.kernel.nofile": "1024:unlimited",
			"limits.memory": "50%", "limits.memory.enforce": "soft", "limits.memory.swap": "false", "limits.memory.swap.priority": "0", "limits.processes": "100",
			"linux.sysctl.net.ipv4.ip_forward": "1", "raw.lxc": "lxc.log.level = 1\nlxc.tty.max = 2",
			"security.nesting": "yes", "security.privileged": "0", "security.protection.delete": "on", "security.protection.shift": "true",
			"security.syscalls.deny": "mount\numount2", "snapshots.expiry": "2w 3d", "snapshots.pattern": "nightly%d",
			"user.note": "line\nline", "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "image.os": "Debian",
		}, "<nil>"},
		"unset keys":                             {Config{"limits.cpu": "", "boot.autostart": ""}, "<nil>"},
		"a misspelt key":                         {Config{"limits.memori": "1GiB"}, `unknown config key "limits.memori": did you mean "limits.memory"?`},
		"a misspelt family of keys":              {Config{"environmet.LANG": "C"}, `unknown config key "environmet.LANG": did you mean "environment.LANG"?`}, //nolint:misspell // misspelt on purpose
		"a misspelt kernel limit":                {Config{"limits.kernel.nofiles": "1"}, `unknown config key "limits.kernel.nofiles": did you mean "limits.kernel.nofile"?`},
		"a key like no other":                    {Config{"zzzzzzzzzz": "1"}, `unknown config key "zzzzzzzzzz"`},
		"a family without a member":              {Config{"user.": "1"}, `unknown config key "user."`},
		"a page for a key":                       {Config{strings.Repeat("x", 5000): "1"}, `unknown config key "` + strings.Repeat("x", 40) + `"…`},
		"the first of two faults by name":        {Config{"b": "1", "a": "1", "c": "1"}, `unknown config key "a"`},
		"a key of LXD that is not built":         {Config{"nvidia.runtime": "true"}, `config key "nvidia.runtime" is not supported by muster: leave it out`},
		"scheduled snapshots":                    {Config{"snapshots.schedule": "@daily"}, `config key "snapshots.schedule" is not supported by muster: leave it out`},
		"the guest API turned off":               {Config{"security.devlxd": "false"}, "<nil>"},
		"the guest API":                          {Config{"security.devlxd": "true"}, `config key "security.devlxd": the guest API /dev/lxd is not built yet: leave it out or set it to false`},
		"a range of ids of its own":              {Config{"security.idmap.isolated": "true"}, `config key "security.idmap.isolated": instances of a member share one range of ids: leave it out or set it to false`},
		"more ids than there are":                {Config{"security.idmap.size": "1000000"}, `config key "security.idmap.size": "1000000": want 65536`},
		"a bad truth value":                      {Config{"boot.autostart": "maybe"}, `config key "boot.autostart": "maybe" is not a truth value: want true or false`},
		"a bad number":                           {Config{"boot.autostart.delay": "soon"}, `config key "boot.autostart.delay": "soon": want a whole number from 0 to 86400`},
		"a number out of range":                  {Config{"limits.cpu.priority": "11"}, `config key "limits.cpu.priority": "11": want a whole number from 0 to 10`},
		"a bad unit":                             {Config{"limits.memory": "1gigs"}, `config key "limits.memory": size "1gigs": unknown unit "gigs"; use B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB or EiB`},
		"no memory at all":                       {Config{"limits.memory": "0"}, `config key "limits.memory": "0" leaves the instance no memory: give a size, or leave it out for no limit`},
		"more memory than there is":              {Config{"limits.memory": "101%"}, `config key "limits.memory": "101": want a whole number from 1 to 100`},
		"a word that is not one of the few":      {Config{"cluster.evacuate": "flee"}, `config key "cluster.evacuate": "flee": want auto, migrate, stop`},
		"a bad kernel limit":                     {Config{"limits.kernel.nofile": "many"}, `config key "limits.kernel.nofile": "many": want soft:hard, one number for both, or unlimited`},
		"a variable with a blank":                {Config{"environment.A B": "1"}, `config key "environment.A B": the name of an environment variable has no blank and no "="`},
		"a variable that begins another line":    {Config{"environment.A": "1\nlxc.hook.start = /evil"}, `config key "environment.A": its value has a line break or another control character; take that away`},
		"a key that begins another line":         {Config{"environment.A\nlxc.hook.start": "1"}, `config key "environment.A\nlxc.hook.start": control characters are not allowed in it`},
		"a kernel setting that begins a line":    {Config{"linux.sysctl.kernel.msgmax": "1\n2"}, `config key "linux.sysctl.kernel.msgmax": its value has a line break or another control character; take that away`},
		"a kernel setting elsewhere":             {Config{"linux.sysctl.../../x": "1"}, `config key "linux.sysctl.../../x": want the name of a kernel setting, such as linux.sysctl.net.ipv4.ip_forward`},
		"a zero byte in a note":                  {Config{"user.note": "a\x00b"}, `config key "user.note": its value has a line break or another control character; take that away`},
		"all calls allowed by name and some not": {Config{"security.syscalls.allow": "read", "security.syscalls.deny": "mount"}, `config key "security.syscalls.allow" refuses everything else already: unset security.syscalls.deny*`},
		"snapshots named by two counters":        {Config{"snapshots.pattern": "%d-%d"}, `config key "snapshots.pattern": "%d-%d": want a name with at most one %d`},
		"snapshots named by a template":          {Config{"snapshots.pattern": "{{ creation_date }}"}, `config key "snapshots.pattern": "{{ creation_date }}": templates are not supported; use a name with %d for a counter`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, name, ValidateInstanceConfig(tc.config, false), tc.want) })
	}
}

func TestProfilesHaveNoKeysOfOneInstance(t *testing.T) {
	wantError(t, "volatile", ValidateInstanceConfig(Config{"volatile.eth0.hwaddr": "x"}, true),
		`config key "volatile.eth0.hwaddr" belongs to one instance: a profile can't have it`)
	wantError(t, "image", ValidateInstanceConfig(Config{"image.os": "x"}, true), `config key "image.os" belongs to one instance: a profile can't have it`)
	wantError(t, "limits", ValidateInstanceConfig(Config{"limits.cpu": "2"}, true), "<nil>")
}

func TestWhatChangesWhileAnInstanceRuns(t *testing.T) {
	for key, want := range map[string]bool{
		"limits.cpu": true, "limits.memory": true, "user.note": true, "environment.A": true,
		"security.privileged": false, "security.nesting": false, "raw.lxc": false, "limits.kernel.nofile": false, "unheard.of": false,
	} {
		if got := LiveUpdatable(key); got != want {
			t.Errorf("LiveUpdatable(%q) = %v; want %v", key, got, want)
		}
	}
}

// The tables are what the documents show: each key once, with a line of help, and
// none of them both built and not.
func TestTablesAreFitToBeShown(t *testing.T) {
	tables := map[string]table{"instance": instanceKeys, "server": serverKeys, "network": networkKeys}
	for kind, options := range deviceTypes {
		tables["device "+kind] = options
	}
	for what, keys := range tables {
		seen := map[string]bool{}
		for _, key := range keys.keys {
			if key.Help == "" || strings.Contains(key.Help, "\n") || seen[key.Name] {
				t.Errorf("%s key %q: help %q, twice %v", what, key.Name, key.Help, seen[key.Name])
			}
			seen[key.Name] = true
		}
		for _, missing := range keys.missing {
			if _, built := keys.find(missing); built || seen[missing] {
				t.Errorf("%s key %q is both built and refused", what, missing)
			}
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := []string{"boot.autostart", "environment.", "limits.kernel.", "size", "user."}
	for word, want := range map[string]string{
		"boot.autstart":         "boot.autostart",
		"boot.autostrat":        "boot.autostart",
		"Environment.PATH":      "environment.PATH",
		"limit.kernel.nofile":   "limits.kernel.nofile",
		"sice":                  "size",
		"usr.a":                 "user.a",
		"something.else.at.all": "",
		"":                      "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q; want %q", word, got, want)
		}
	}
}

// Whatever is accepted stands on one line, unless the key is made for several,
// and every refusal is a plain sentence.
func FuzzInstanceConfig(f *testing.F) {
	for _, seed := range [][2]string{
		{"limits.memory", "1GiB"},
		{"environment.A", "b\nc"},
		{"linux.sysctl.a", "\r"},
		{"raw.lxc", "a\nb"},
		{"snapshots.expiry", "9999999y"},
		{"limits.kernel.nofile", "1:"},
		{"snapshots.pattern", "%"},
		{"user.\x00", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		err := ValidateInstanceConfig(Config{key: value}, false)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q=%q: %q is not a plain sentence of kind ErrInvalid", key, value, err)
			}
			return
		}
		found, ok := instanceKeys.find(key)
		if !ok || strings.ContainsAny(key+value, "\x00") || strings.Contains(key, "\n") || !found.lines && strings.ContainsAny(value, "\n\r") {
			t.Errorf("%q=%q passes", key, value)
		}
	})
}
