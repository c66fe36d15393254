package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/cmd/muster/remote"
)

func load(t *testing.T, dir string) *remote.Config {
	t.Helper()
	c, err := remote.Load(dir, "/nowhere/unix.socket")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSplit(t *testing.T) {
	c := load(t, t.TempDir())
	if err := c.Add("far", remote.Remote{Addr: "https://far:8443"}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ arg, remote, name, wantErr string }{
		"a bare name is on the default remote": {arg: "c1", remote: "local", name: "c1"},
		"a remote and a name":                  {arg: "far:c1", remote: "far", name: "c1"},
		"a remote alone":                       {arg: "far:", remote: "far"},
		"nothing at all":                       {arg: "", remote: "local"},
		"only the first colon counts":          {arg: "far:a:b", remote: "far", name: "a:b"},
		"a snapshot":                           {arg: "far:c1/snap0", remote: "far", name: "c1/snap0"},
		"an unknown remote names the others":   {arg: "near:c1", wantErr: "there are: far, local"},
		"an empty remote is unknown":           {arg: ":c1", wantErr: "no remote"},
	} {
		t.Run(name, func(t *testing.T) {
			gotRemote, gotName, err := c.Split(tc.arg)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil || gotRemote != tc.remote || gotName != tc.name {
				t.Errorf("Split(%q) = %q, %q, %v; want %q, %q", tc.arg, gotRemote, gotName, err, tc.remote, tc.name)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for typed, want := range map[string]string{
		"far":                       "https://far:8443",
		"far:9000":                  "https://far:9000",
		"https://far":               "https://far:8443",
		"https://far:8443/1.0":      "https://far:8443",
		"10.0.0.1":                  "https://10.0.0.1:8443",
		"fd42::1":                   "https://[fd42::1]:8443",
		"[fd42::1]:9000":            "https://[fd42::1]:9000",
		"unix:///run/x/unix.socket": "unix:///run/x/unix.socket",
		"http://far":                "",
		"https://":                  "",
		"far:port":                  "",
	} {
		got, err := remote.Address(typed)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Address(%q) = %q, %v; want %q", typed, got, err, want)
		}
	}
}

func TestListIsKept(t *testing.T) {
	dir := t.TempDir()
	c := load(t, dir)
	steps := []error{
		c.Add("far", remote.Remote{Addr: "https://far:8443", AuthType: "tls", Protocol: "lxd"}),
		c.Add("other", remote.Remote{Addr: "https://other:8443", Project: "web"}),
		c.Rename("other", "near"),
		c.SetURL("near", "https://near:8443"),
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	c.Default = "near"
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	again := load(t, dir)
	want := map[string]remote.Remote{
		"local": {Addr: "unix://", Static: true},
		"far":   {Addr: "https://far:8443", AuthType: "tls", Protocol: "lxd"},
		"near":  {Addr: "https://near:8443", Project: "web"},
	}
	if diff := cmp.Diff(want, again.Remotes); diff != "" || again.Default != "near" {
		t.Errorf("default %q, remotes (-want +got):\n%s", again.Default, diff)
	}
}

func TestRefusals(t *testing.T) {
	c := load(t, t.TempDir())
	if err := c.Add("far", remote.Remote{Addr: "https://far:8443"}); err != nil {
		t.Fatal(err)
	}
	c.Default = "far"
	for name, err := range map[string]error{
		"removing the default":         c.Remove("far"),
		"removing local":               c.Remove("local"),
		"renaming local":               c.Rename("local", "x"),
		"renaming a stranger":          c.Rename("nobody", "x"),
		"renaming onto another":        c.Rename("far", "local"),
		"adding one twice":             c.Add("far", remote.Remote{}),
		"a name with a colon":          c.Add("a:b", remote.Remote{}),
		"a path as a name":             c.Add("../x", remote.Remote{}),
		"changing the address of ours": c.SetURL("local", "https://x:1"),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := remote.Load(writeConfig(t, "remotes: [a]\n"), ""); err == nil || !strings.Contains(err.Error(), "config.yml") {
		t.Errorf("a broken file: %v, want an error that names it", err)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	first, err := load(t, dir).Identity()
	if err != nil {
		t.Fatal(err)
	}
	second, err := load(t, dir).Identity()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Certificate, second.Certificate); diff != "" {
		t.Errorf("the second call made another identity:\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, "client.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v), want 0600", info.Mode(), err)
	}
	if err := os.Remove(filepath.Join(dir, "client.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, dir).Identity(); err == nil {
		t.Error("a certificate without its key was replaced in silence")
	}
	// Pinning and forgetting.
	c := load(t, dir)
	if err := c.Add("far", remote.Remote{Addr: "https://far:8443"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Pin("far", first.Leaf); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ServerCertificate("far"); err != nil || !got.Equal(first.Leaf) {
		t.Errorf("pinned %v, %v", got, err)
	}
	if err := c.Remove("far"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ServerCertificate("far"); got != nil || err != nil {
		t.Errorf("after removal %v, %v", got, err)
	}
}
