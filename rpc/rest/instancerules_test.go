package rest

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// A change of state that makes no sense now is 400, as the API's document has it; so is
// the deletion of what runs, in the words that clients look for.
func TestStatesThatMakeNoSense(t *testing.T) {
	x := furnished(t)
	c := x.local
	x.create("c1")
	to := func(action string) string { return fmt.Sprintf(`{"action": %q, "timeout": 5}`, action) }
	const url = "PUT /1.0/instances/c1/state"
	c.refused(url, to("stop"), 400, "already stopped")
	c.refused(url, to("freeze"), 400, "not running")
	c.refused(url, to("unfreeze"), 400, "not frozen")
	c.refused(url, to("restart"), 400, "not running")
	x.finish(url, to("start"))
	c.refused(url, to("start"), 400, "already running")
	c.refused(url, to("unfreeze"), 400, "not frozen")
	c.refused("DELETE /1.0/instances/c1", "", 400, "Instance is running")
	x.finish(url, to("freeze"))
	c.refused(url, to("freeze"), 400, "already frozen")
	c.refused("DELETE /1.0/instances/c1", "", 400, "Instance is running")
}

// Snapshots have the names that stock clients give them; all that can be done with one
// works whatever it is called.
func TestSnapshotNames(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	for _, name := range []string{"2026-11-29T06:30:00", "a*b", `a"b'c\d`, "a#b%d,;", "-a", ".a", "ä", strings.Repeat("x", 255)} {
		at := "/1.0/instances/c1/snapshots/" + url.PathEscape(name)
		x.finish("POST /1.0/instances/c1/snapshots", fmt.Sprintf(`{"name": %q}`, name))
		var got api.InstanceSnapshot
		if x.local.must("GET "+at, "", &got); got.Name != name {
			t.Errorf("snapshot %q shows the name %q", name, got.Name)
		}
		x.finish("PUT /1.0/instances/c1", fmt.Sprintf(`{"restore": %q}`, name))
		x.finish("POST /1.0/instances", fmt.Sprintf(`{"name": "copy", "source": {"type": "copy", "source": %q}}`, "c1/"+name))
		x.finish("DELETE /1.0/instances/copy", "")
		x.finish("POST "+at, `{"name": "plain"}`)
		x.finish("POST /1.0/instances/c1/snapshots/plain", fmt.Sprintf(`{"name": %q}`, name))
		x.finish("DELETE "+at, "")
	}
	for _, name := range []string{"a+b", "a b", "a/b", "a?b", "a&b", "..", strings.Repeat("x", 256)} {
		x.local.refused("POST /1.0/instances/c1/snapshots", fmt.Sprintf(`{"name": %q}`, name), 400, "snapshot name")
	}
}

// No new instance gets a name that begins with a digit. One that has such a name keeps it,
// and can be used.
func TestInstanceNamesThatBeginWithADigit(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	x.local.refused("POST /1.0/instances", `{"name": "12test", "source": {"type": "none"}}`, 400, "begins with a digit")
	x.local.refused("POST /1.0/instances", `{"name": "12test", "source": {"type": "copy", "source": "c1"}}`, 400, "begins with a digit")
	x.local.refused("POST /1.0/instances/c1", `{"name": "12test"}`, 400, "begins with a digit")
	// As an earlier release recorded it.
	inst, err := x.store.View().Instance("default", "c1")
	x.must(err)
	old := *inst
	old.Memo, old.ID, old.Name = nil, 0, "12test"
	_, err = x.store.Apply(t.Context(), store.CreateInstance{Instance: old, Intent: state.Intent{ID: "old"}})
	x.must(err)
	_, err = x.store.Apply(t.Context(), store.FinishCreate{Project: "default", Name: "12test", IntentID: "old"})
	x.must(err)
	x.local.must("PATCH /1.0/instances/12test", `{"config": {"user.a": "1"}}`, nil)
	x.finish("POST /1.0/instances/12test", `{"name": "test12"}`)
	x.finish("DELETE /1.0/instances/test12", "")
}

// An instance has one root disk, also when its own and its profile's have different names.
func TestTwoRootDisks(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	const second = `{"devices": {"other": {"type": "disk", "path": "/", "pool": "p"}}}`
	const want = "root disk"
	x.local.refused("POST /1.0/instances", `{"name": "c2", "source": {"type": "none"}, `+second[1:], 400, want)
	x.local.refused("PATCH /1.0/instances/c1", second, 400, want)
	x.local.must("POST /1.0/profiles", `{"name": "two", `+second[1:], nil)
	x.local.refused("PATCH /1.0/instances/c1", `{"profiles": ["default", "two"]}`, 400, want)
	x.local.must("POST /1.0/profiles", `{"name": "extra"}`, nil)
	x.finish("POST /1.0/instances", `{"name": "c2", "profiles": ["two", "extra"], "source": {"type": "none"}}`)
	x.local.refused("PATCH /1.0/profiles/extra", `{"devices": {"third": {"type": "disk", "path": "/", "pool": "p"}}}`, 400, want)
	x.finish("DELETE /1.0/instances/c2", "")
	x.local.must("DELETE /1.0/profiles/two", "", nil)
	x.local.must("DELETE /1.0/profiles/extra", "", nil)
}

// cloud-init in the guest is told of another instance when what it is given changes, the
// names of nics, or the instance's own name, and of nothing else.
func TestInstanceID(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	name := "c1"
	seen := map[string]bool{}
	id := func() string { return x.instance(name).Config["volatile.cloud-init.instance-id"] }
	last := id()
	seen[last] = true
	for _, step := range []struct {
		line, body string
		renewed    bool
	}{
		{"PATCH /1.0/instances/c1", `{"config": {"user.a": "1"}}`, false},
		{"PATCH /1.0/instances/c1", `{"config": {"cloud-init.user-data": "a"}}`, true},
		{"PATCH /1.0/instances/c1", `{"config": {"user.user-data": "a"}}`, true},
		{"PATCH /1.0/instances/c1", `{"devices": {"n": {"type": "nic", "nictype": "p2p"}}}`, true},
		{"PATCH /1.0/instances/c1", `{"devices": {"n": {"type": "nic", "nictype": "p2p", "mtu": "1400"}}}`, false},
		{"PATCH /1.0/instances/c1", `{"devices": {"n": {"type": "nic", "nictype": "p2p", "mtu": "1400", "name": "net7"}}}`, true},
		{"PATCH /1.0/profiles/default", `{"config": {"cloud-init.vendor-data": "a"}}`, true},
		{"PATCH /1.0/profiles/default", `{"config": {"user.b": "a"}}`, false},
		{"POST /1.0/instances/c1/snapshots", `{"name": "s"}`, false},
		{"PUT /1.0/instances/c1", `{"restore": "s"}`, false},
		{"PATCH /1.0/instances/c1", `{"config": {"cloud-init.user-data": "b"}}`, true},
		{"PUT /1.0/instances/c1", `{"restore": "s"}`, true},
		{"POST /1.0/instances/c1", `{"name": "c2"}`, true},
	} {
		got := x.local.must(step.line, step.body, nil)
		if got.Operation != "" {
			x.local.must("GET "+got.Operation+"/wait", "", nil)
		}
		if strings.Contains(step.body, "c2") {
			name = "c2"
		}
		now := id()
		if now == "" || (now != last) != step.renewed || now != last && seen[now] {
			t.Errorf("%s %s: instance ID %q after %q; want a new one: %v", step.line, step.body, now, last, step.renewed)
		}
		last = now
		seen[now] = true
	}
}

// Stock clients move to another pool by a copy that they give the volatile keys of the
// source. What was to be done at the first start is still to be done then.
func TestCopyThatIsAMove(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	was := state.Config{"volatile.apply_template": "create", "volatile.n.hwaddr": "00:16:3e:12:34:56"}
	_, err := x.store.Apply(t.Context(), store.SetInstanceState{Project: "default", Name: "c1", Set: was})
	x.must(err)
	id := x.instance("c1").Config["volatile.uuid"]
	body := `{"name": "%s", "source": {"type": "copy", "source": "c1"}, "config": {"volatile.uuid": "%s", "volatile.apply_template": "create", "volatile.n.hwaddr": "00:16:3e:12:34:56"}}`
	x.finish("POST /1.0/instances", fmt.Sprintf(body, "moved", id))
	x.finish("POST /1.0/instances", fmt.Sprintf(body, "copied", "another"))
	moved, copied := x.instance("moved").Config, x.instance("copied").Config
	for key, value := range was {
		if moved[key] != value {
			t.Errorf("moved: %s is %q; want %q as before", key, moved[key], value)
		}
	}
	if copied["volatile.apply_template"] != "copy" || copied["volatile.n.hwaddr"] != "" || copied["volatile.uuid"] == id {
		t.Errorf("copied: %v; want nothing of its source's", copied)
	}
}

// security.privileged of what runs takes effect at the next start.
func TestPrivilegedWhileItRuns(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	map1 := func() string { return x.instance("c1").Config["volatile.last_state.idmap"] }
	x.finish("PUT /1.0/instances/c1/state", `{"action": "start"}`)
	unprivileged := map1()
	for _, value := range []string{"true", "false"} {
		before := map1()
		x.local.must("PATCH /1.0/instances/c1", fmt.Sprintf(`{"config": {"security.privileged": %q}}`, value), nil)
		x.local.must("PATCH /1.0/instances/c1", `{"config": {"linux.sysctl.net.ipv4.ip_forward": "1"}}`, nil)
		x.local.must("PATCH /1.0/instances/c1", `{"config": {"linux.sysctl.net.ipv4.ip_forward": ""}}`, nil)
		if got := map1(); got != before {
			t.Errorf("set to %s while it runs: map %s; want it as it was", value, got)
		}
		x.finish("PUT /1.0/instances/c1/state", `{"action": "restart", "force": true}`)
		if got := map1(); (got == unprivileged) != (value == "false") || value == "true" && got != "[]" {
			t.Errorf("restarted with %s: map %s", value, got)
		}
	}
	x.local.must("PATCH /1.0/profiles/default", `{"config": {"security.privileged": "true"}}`, nil)
	if got := map1(); got != unprivileged {
		t.Errorf("set in the profile while it runs: map %s; want it as it was", got)
	}
}
