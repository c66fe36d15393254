package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// wantError compares an error's message with what is wanted: "<nil>" for none.
// Every error must be ErrInvalid.
func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); got != want {
		t.Errorf("%s: got  %s\nwant %s", what, got, want)
	}
	if err != nil && !errors.Is(err, ErrInvalid) {
		t.Errorf("%s: %v is not ErrInvalid", what, err)
	}
}

func TestInstanceNames(t *testing.T) {
	for name, tc := range map[string]struct{ name, want string }{
		"a word":                         {"web", "<nil>"},
		"letters, digits, hyphens":       {"Web-01", "<nil>"},
		"a digit first":                  {"9lives", `instance name "9lives": it begins with a digit; put a letter before it`},
		"64 characters":                  {strings.Repeat("a", 64), "<nil>"},
		"65 characters":                  {strings.Repeat("a", 65), `instance name "aaaaaaaaaaaaaaaaaaaa"… has 65 characters: use 64 at most`},
		"none":                           {"", "instance name is empty: give one"},
		"only digits":                    {"123", `instance name "123": it has only digits; put a letter in it`},
		"a slash":                        {"a/b", `instance name "a/b": '/' is not allowed; use letters, digits and hyphens`},
		"a colon":                        {"a:b", `instance name "a:b": ':' is not allowed; use letters, digits and hyphens`},
		"a comma":                        {"a,b", `instance name "a,b": ',' is not allowed; use letters, digits and hyphens`},
		"a dot":                          {"a.b", `instance name "a.b": '.' is not allowed; use letters, digits and hyphens`},
		"an underscore":                  {"a_b", `instance name "a_b": '_' is not allowed; use letters, digits and hyphens`},
		"a letter outside ASCII":         {"bär", `instance name "bär": 'ä' is not allowed; use letters, digits and hyphens`},
		"a digit outside ASCII":          {"a٣", `instance name "a٣": '٣' is not allowed; use letters, digits and hyphens`},
		"a hyphen first":                 {"-a", `instance name "-a": it begins or ends with a hyphen; take that away`},
		"a hyphen last":                  {"a-", `instance name "a-": it begins or ends with a hyphen; take that away`},
		"a zero byte":                    {"a\x00b", `instance name "a\x00b": '\x00' is not allowed; use letters, digits and hyphens`},
		"a path that leads out":          {"..", `instance name "..": '.' is not allowed; use letters, digits and hyphens`},
		"bytes that are no text":         {"a\xff", `instance name "a\xff": '�' is not allowed; use letters, digits and hyphens`},
		"a line break":                   {"a\nb", `instance name "a\nb": '\n' is not allowed; use letters, digits and hyphens`},
		"only hyphens":                   {"-", `instance name "-": it begins or ends with a hyphen; take that away`},
		"a letter among digits and more": {"1-2", `instance name "1-2": it begins with a digit; put a letter before it`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, tc.name, ValidateInstanceName(tc.name), tc.want) })
	}
}

func TestOtherNames(t *testing.T) {
	for name, tc := range map[string]struct {
		validate func(string) error
		name     string
		want     string
	}{
		"a snapshot":                           {ValidateSnapshotName, "snap0", "<nil>"},
		"a snapshot of a time":                 {ValidateSnapshotName, "2026-11-21_12.30", "<nil>"},
		"a snapshot of a moment":               {ValidateSnapshotName, "2026-11-29T06:30:00", "<nil>"},
		"a snapshot with a star":               {ValidateSnapshotName, "a*b", "<nil>"},
		"a snapshot of 255 bytes":              {ValidateSnapshotName, strings.Repeat("a", 255), "<nil>"},
		"a snapshot of 256 bytes":              {ValidateSnapshotName, strings.Repeat("a", 256), `snapshot name "aaaaaaaaaaaaaaaaaaaa"… has 256 characters: use 255 at most`},
		"a snapshot with a plus":               {ValidateSnapshotName, "a+b", `snapshot name "a+b": '+' is not allowed; leave out blanks, "/", "?", "&" and "+"`},
		"a snapshot with a slash":              {ValidateSnapshotName, "a/b", `snapshot name "a/b": '/' is not allowed; leave out blanks, "/", "?", "&" and "+"`},
		"a snapshot that leads out":            {ValidateSnapshotName, "..", `snapshot name ".." is reserved: choose another`},
		"a snapshot with a blank":              {ValidateSnapshotName, "a b", `snapshot name "a b": ' ' is not allowed; leave out blanks, "/", "?", "&" and "+"`},
		"a snapshot that turns text around":    {ValidateSnapshotName, "a\u202eb", `snapshot name "a\u202eb": '\u202e' is not allowed; leave out blanks, "/", "?", "&" and "+"`},
		"a profile":                            {ValidateProfileName, "default", "<nil>"},
		"a profile that looks like an option":  {ValidateProfileName, "-p", `profile name "-p": it begins with '-'; take that away`},
		"a profile with a question mark":       {ValidateProfileName, "a?b", `profile name "a?b": '?' is not allowed; use letters, digits, hyphens, dots and underscores`},
		"a project":                            {ValidateProjectName, "team-1", "<nil>"},
		"a project with an underscore":         {ValidateProjectName, "a_b", `project name "a_b": underscores are not allowed; use letters, digits and hyphens`},
		"a pool":                               {ValidatePoolName, "default", "<nil>"},
		"a pool without a name":                {ValidatePoolName, "", "storage pool name is empty: give one"},
		"a volume":                             {ValidateVolumeName, "data", "<nil>"},
		"a device":                             {ValidateDeviceName, "eth0", "<nil>"},
		"a device with a slash":                {ValidateDeviceName, "a/b", `device name "a/b": '/' is not allowed; use letters, digits, hyphens, dots and underscores`},
		"a member":                             {ValidateMemberName, "node1", "<nil>"},
		"a member with a dot":                  {ValidateMemberName, "a.b", `member name "a.b": '.' is not allowed; use letters, digits and hyphens`},
		"an alias with slashes":                {ValidateAliasName, "ubuntu/22.04", "<nil>"},
		"an alias that begins with a slash":    {ValidateAliasName, "/a", "<nil>"},
		"an alias of dots":                     {ValidateAliasName, "..", `alias name "..": ".." is a step in a path; leave it out`},
		"an alias of a dot":                    {ValidateAliasName, ".", `alias name ".": "." is a step in a path; leave it out`},
		"an alias that leads elsewhere":        {ValidateAliasName, "../x", `alias name "../x": ".." is a step in a path; leave it out`},
		"an alias that leads nowhere":          {ValidateAliasName, "a/./x", `alias name "a/./x": "." is a step in a path; leave it out`},
		"an alias of a slash":                  {ValidateAliasName, "/", `alias name "/": it has only slashes; put a letter in it`},
		"an alias with dots in it":             {ValidateAliasName, "a..b/.c", "<nil>"},
		"an alias with a colon":                {ValidateAliasName, "a:b", `alias name "a:b": leave out blanks, quotes, "\", ":", ",", "?", "#", "&" and what can't be printed`},
		"an alias with a percent sign":         {ValidateAliasName, "a%zz", "<nil>"},
		"a network":                            {ValidateNetworkName, "mustbr0", "<nil>"},
		"a network of 15 characters":           {ValidateNetworkName, strings.Repeat("a", 15), "<nil>"},
		"a network of 16 characters":           {ValidateNetworkName, strings.Repeat("a", 16), `network name "aaaaaaaaaaaaaaaa"… has 16 characters: use 15 at most`},
		"a network called like a sysctl group": {ValidateNetworkName, "all", `network name "all" is reserved: choose another`},
		"a network called like the loopback":   {ValidateNetworkName, "lo", `network name "lo" is reserved: choose another`},
		"a network with a slash":               {ValidateNetworkName, "a/b", `network name "a/b": '/' is not allowed; use letters, digits, hyphens, dots and underscores`},
		"a network with a wildcard":            {ValidateNetworkName, "br*", `network name "br*": '*' is not allowed; use letters, digits, hyphens, dots and underscores`},
		"a network of one letter":              {ValidateNetworkName, "a", `network name "a": use two characters or more`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, tc.name, tc.validate(tc.name), tc.want) })
	}
}

func TestArchitecturesThatRun(t *testing.T) {
	for name, tc := range map[string]struct {
		guest, host string
		want        bool
	}{
		"the same":                     {"x86_64", "x86_64", true},
		"32 bit on 64 bit":             {"i686", "x86_64", true},
		"64 bit on 32 bit":             {"x86_64", "i686", false},
		"another family":               {"aarch64", "x86_64", false},
		"one nobody knows, on its own": {"riscv64", "riscv64", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := RunsOn(tc.guest, tc.host); got != tc.want {
				t.Errorf("RunsOn(%s, %s) = %v; want %v", tc.guest, tc.host, got, tc.want)
			}
		})
	}
}

// What passes as a name becomes part of paths, URLs and host names.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"web", "..", "a/b", "-a", "١", "a\x00", "snap%d", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for what, validate := range map[string]func(string) error{
			"instance": ValidateInstanceName, "snapshot": ValidateSnapshotName, "profile": ValidateProfileName, "project": ValidateProjectName,
			"pool": ValidatePoolName, "volume": ValidateVolumeName, "device": ValidateDeviceName, "network": ValidateNetworkName,
		} {
			if err := validate(name); err != nil {
				if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") {
					t.Errorf("%s %q: %q is not a plain sentence of kind ErrInvalid", what, name, err)
				}
				continue
			}
			if what == "snapshot" {
				if name == "" || len(name) > 255 || strings.ContainsAny(name, "/ \n\t\x00") || name == "." || name == ".." {
					t.Errorf("%s name %q passes", what, name)
				}
				continue
			}
			if name == "" || len(name) > 64 || strings.ContainsAny(name, "/:, \n\t\x00") || name[0] == '-' || name == "." || name == ".." {
				t.Errorf("%s name %q passes", what, name)
			}
		}
	})
}

// No name that any noun takes is a step in a path, or nothing: a URL could not name it.
func TestNamesThatURLsCanSay(t *testing.T) {
	for noun, validate := range map[string]func(string) error{
		"instance": ValidateInstanceName, "member": ValidateMemberName, "group": ValidateGroupName, "failure domain": ValidateDomainName,
		"snapshot": ValidateSnapshotName, "profile": ValidateProfileName, "project": ValidateProjectName, "pool": ValidatePoolName,
		"volume": ValidateVolumeName, "device": ValidateDeviceName, "alias": ValidateAliasName, "network": ValidateNetworkName,
	} {
		for _, name := range []string{"", ".", "..", "/", "//", "../x", "x/..", "./x", "x/.", "a/../b", "a?b", "a&b", "a\x00b", "a\nb", " ", "a b", "\xff"} {
			if err := validate(name); err == nil {
				t.Errorf("the %s name %q is taken", noun, name)
			}
		}
	}
}
