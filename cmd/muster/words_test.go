package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func TestLeavingAConsole(t *testing.T) {
	for name, tc := range map[string]struct {
		typed, want string
		left        bool
	}{
		"what is typed goes through":    {"ls\r", "ls\r", false},
		"ctrl-a q leaves":               {"ls\x01q", "ls", true},
		"what comes after is not heard": {"\x01qrm -rf /\r", "", true},
		"ctrl-a twice is one":           {"\x01\x01", "\x01", false},
		"ctrl-a before another key":     {"\x01x", "\x01x", false},
		"a q alone":                     {"q", "q", false},
		"ctrl-a twice, then q":          {"\x01\x01q", "\x01q", false},
		"nothing":                       {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			for chunks, reader := range map[string]io.Reader{
				"at once": strings.NewReader(tc.typed), "key by key": iotest.OneByteReader(strings.NewReader(tc.typed)),
			} {
				got, err := io.ReadAll(&leaver{from: reader})
				if string(got) != tc.want || errors.Is(err, client.ErrDetached) != tc.left {
					t.Errorf("%s: %q, %v; want %q, left: %v", chunks, got, err, tc.want, tc.left)
				}
			}
		})
	}
}

func TestHints(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"no socket":                   {&client.ConnectionError{Server: "/var/lib/muster/unix.socket", Err: fs.ErrNotExist}, "Start it with `musterd`"},
		"nobody listens on it":        {&client.ConnectionError{Server: "/var/lib/muster/unix.socket", Err: refused}, "Start it with `musterd`"},
		"it is not for us":            {&client.ConnectionError{Server: "/var/lib/muster/unix.socket", Err: fs.ErrPermission}, "sudo"},
		"a port that is closed":       {&client.ConnectionError{Server: "https://far:8443", Err: refused}, "core.https_address"},
		"a changed certificate":       {&client.ConnectionError{Server: "https://far:8443", Err: client.ErrServerCertificate}, "remove the remote and add it again"},
		"a stranger":                  {&client.Error{Code: 403, Message: "not authorized"}, "muster remote add NAME TOKEN"},
		"a stranger to muster":        {fmt.Errorf("list: %w", &client.Error{Code: 403, Message: "not authorized: the client certificate is not trusted here"}), "muster remote add NAME TOKEN"},
		"what nobody may do":          {&client.Error{Code: 403, Message: `profile "default" can't be deleted: every project has it`}, ""},
		"what a restricted one may":   {&client.Error{Code: 403, Message: "not authorized: this certificate is restricted to its projects"}, ""},
		"a wrong command line":        {&usageError{err: errors.New("x"), path: "muster list"}, "See `muster list --help`."},
		"what the command knows":      {fmt.Errorf("while: %w", advise(errors.New("x"), "Do %s.", "y")), "Do y."},
		"a member nobody knows":       {&client.Error{Code: 404, Message: `cluster member "m9" not found`}, "muster cluster list"},
		"something else nobody knows": {&client.Error{Code: 404, Message: `instance "m9" not found`}, ""},
		"another failure":             {&client.Error{Code: 500, Message: "oops"}, ""},
		"nothing known about a host":  {&client.ConnectionError{Server: "https://far:8443", Err: errors.New("no such host")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := hint(tc.err)
			if !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("%q, want %q in it", got, tc.want)
			}
		})
	}
	if advise(nil, "x") != nil {
		t.Error("advice made an error out of nothing")
	}
}

func TestReport(t *testing.T) {
	for name, tc := range map[string]struct {
		err         error
		interrupted bool
		code        int
		said        string
	}{
		"success":                      {nil, false, 0, ""},
		"a failure":                    {errors.New("no such thing"), false, exitFailed, "Error: no such thing\n"},
		"a wrong command line":         {&usageError{err: errors.New("what?"), path: "muster"}, false, exitUsage, "Error: what?\nSee `muster --help`.\n"},
		"the status of a command":      {&exitStatus{code: 7}, false, 7, ""},
		"a command that can't be run":  {&exitStatus{code: 127, err: errors.New("not found")}, false, 127, "Error: not found\n"},
		"interrupted":                  {context.Canceled, true, exitInterrupted, ""},
		"interrupted, with work left":  {fmt.Errorf("%w: x goes on", errInterrupted), true, exitInterrupted, "Error: interrupted: x goes on\n"},
		"failed before the interrupt":  {errors.New("no such thing"), true, exitFailed, "Error: no such thing\n"},
		"cancelled for another reason": {context.Canceled, false, exitFailed, "Error: context canceled\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			if code := report(&said, tc.err, tc.interrupted); code != tc.code || said.String() != tc.said {
				t.Errorf("code %d, said %q; want %d, %q", code, said.String(), tc.code, tc.said)
			}
		})
	}
}

func TestPairs(t *testing.T) {
	a := newApp(os.Stdin, io.Discard, io.Discard, os.Getenv)
	for name, tc := range map[string]struct {
		args    []string
		want    map[string]string
		wantErr string
	}{
		"several":             {args: []string{"a=1", "b=x=y", "c="}, want: map[string]string{"a": "1", "b": "x=y", "c": ""}},
		"the older way":       {args: []string{"a", "1"}, want: map[string]string{"a": "1"}},
		"none":                {want: map[string]string{}},
		"no equals sign":      {args: []string{"a"}, wantErr: "KEY=VALUE"},
		"no key":              {args: []string{"=1"}, wantErr: "KEY=VALUE"},
		"the same key twice":  {args: []string{"a=1", "a=2"}, wantErr: "twice"},
		"the older way, more": {args: []string{"a", "1", "b"}, wantErr: "KEY=VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := a.pairs(tc.args)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestDeviceChanges(t *testing.T) {
	got, err := deviceChanges([]string{"root,size=5GiB,pool=fast", "eth0,mtu=9000", "root,io.cache=none"})
	want := map[string]map[string]string{"root": {"size": "5GiB", "pool": "fast", "io.cache": "none"}, "eth0": {"mtu": "9000"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"root", ",size=1", "root,size", "root,=1"} {
		if _, err := deviceChanges([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestCopiedConfig(t *testing.T) {
	got := copiedConfig(map[string]string{
		"limits.cpu": "2", "volatile.base_image": "abc", "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
		"volatile.uuid": "x", "volatile.last_state.idmap": "[]", "user.volatile": "y",
	})
	want := map[string]string{"limits.cpu": "2", "volatile.base_image": "abc", "volatile.last_state.idmap": "[]", "user.volatile": "y"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.00KiB", 446464: "436.00KiB", 5 << 30: "5.00GiB", 1 << 62: "4.00EiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{999: "999B", 1220: "1.22kB", 1036715: "1.04MB", 3e12: "3.00TB"} {
		if got := sizeDecimal(n); got != want {
			t.Errorf("sizeDecimal(%d) = %q, want %q", n, got, want)
		}
	}
	for _, unset := range []time.Time{{}, time.Unix(0, 0)} {
		if got := moment(unset); got != "" {
			t.Errorf("a time that is not set is shown as %q", got)
		}
	}
	if got := elided("äöü", 2); got != "äö" {
		t.Errorf("elided = %q", got)
	}
}

func TestUsedBy(t *testing.T) {
	for url, want := range map[string][2]string{
		"/1.0/instances/c1":                        {"instances", "c1"},
		"/1.0/instances/c1?project=web":            {"instances", "c1"},
		"/1.0/instances/c1/snapshots/s1":           {"snapshots", "c1/s1"},
		"/1.0/images/abc":                          {"images", "abc"},
		"/1.0/storage-pools/p/volumes/custom/data": {"storage-pools", "data"},
		"nonsense": {"other", "nonsense"},
	} {
		if kind, name := usedBy(url); kind != want[0] || name != want[1] {
			t.Errorf("usedBy(%q) = %q, %q; want %q", url, kind, name, want)
		}
	}
}

func TestExportName(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		target string
		file   client.ExportedFile
		want   string
	}{
		"into a directory":               {dir, client.ExportedFile{Name: "i.tar.gz"}, dir + "/i.tar.gz"},
		"into a directory that is to be": {"new/", client.ExportedFile{Name: "i.tar.gz"}, "new/i.tar.gz"},
		"with a name of our own":         {"mine", client.ExportedFile{Name: "i.tar.xz"}, "mine.tar.xz"},
		"with its end":                   {"mine.tar.xz", client.ExportedFile{Name: "i.tar.xz"}, "mine.tar.xz"},
		"a split image's metadata":       {"mine", client.ExportedFile{Field: "metadata", Name: "meta-i.tar.xz"}, "mine.tar.xz"},
		"a split image's tarball":        {"mine", client.ExportedFile{Field: "rootfs", Name: "i.tar.xz"}, "mine.root.tar.xz"},
		"a split image's squashfs":       {"mine", client.ExportedFile{Field: "rootfs", Name: "i.squashfs"}, "mine.squashfs"},
		"the server proposes nothing":    {dir, client.ExportedFile{}, dir + "/abc"},
		"nothing, and a name of our own": {"mine", client.ExportedFile{}, "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exportName(tc.target, "abc", tc.file); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestImageFilters(t *testing.T) {
	image := api.Image{
		ImagePut: api.ImagePut{Properties: map[string]string{"os": "Debian"}}, Fingerprint: "abcdef",
		Architecture: "x86_64", Type: "container", Aliases: []api.ImageAlias{{Name: "debian/12"}, {Name: "d"}},
	}
	for filter, want := range map[string]bool{
		"abc": true, "bcd": false, "bian": true, "os=debian": true, "os=ubuntu": false,
		"architecture=x86_64": true, "type=virtual-machine": false,
	} {
		if got := imageFits(image, []string{filter}); got != want {
			t.Errorf("%q: %v, want %v", filter, got, want)
		}
	}
	if got := shortestAlias(image); got != "d (1 more)" {
		t.Errorf("shortest alias %q", got)
	}
}

func TestTokenOf(t *testing.T) {
	// As LXD 5.0.2 writes it.
	op := api.Operation{ID: "1", Metadata: map[string]any{
		"addresses": []any{"10.0.0.1:8443"}, "fingerprint": "ab", "secret": "s",
		"request": map[string]any{"name": "alice", "token": true}, "expiresAt": "2026-11-29T10:17:27.5Z",
	}}
	want := api.CertificateAddToken{
		ClientName: "alice", Fingerprint: "ab", Addresses: []string{"10.0.0.1:8443"}, Secret: "s",
		ExpiresAt: time.Date(2026, 11, 29, 10, 17, 27, 500e6, time.UTC),
	}
	got, err := tokenOf(op)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := tokenOf(api.Operation{ID: "2"}); err == nil {
		t.Error("an operation without a secret was taken for a token")
	}
}

func TestPlacementTable(t *testing.T) {
	got := placementTable(api.Placement{Member: "m2", Members: []api.PlacementVerdict{
		{Member: "m10", Filter: "status", Reason: "is offline", Scores: map[string]float64{}},
		{Member: "m2", Scores: map[string]float64{"count": 1, "anti_affinity": 0.25}, Total: 1.25},
	}})
	want := [][]string{
		{"m2", "YES", "1.250", "0.250", "1.000", "", ""},
		{"m10", "", "", "", "", "status", "is offline"},
	}
	header := []string{"MEMBER", "CHOSEN", "TOTAL", "ANTI AFFINITY", "COUNT", "REFUSED BY", "REASON"}
	if diff := cmp.Diff(header, got.Header) + cmp.Diff(want, got.Rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
