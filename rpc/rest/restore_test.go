package rest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// A restore works although profiles, networks or pools that the snapshot names are no
// longer there. It says which, and the instance can be used afterwards.
func TestRestoreWithoutWhatIsGone(t *testing.T) {
	x := furnished(t)
	c := x.local
	c.must("POST /1.0/profiles", `{"name": "p", "config": {"user.p": "1"}}`, nil)
	c.must("POST /1.0/profiles", `{"name": "disk", "devices": {"root": {"type": "disk", "path": "/", "pool": "p"}}}`, nil)
	c.must("POST /1.0/storage-pools", `{"name": "spare", "driver": "dir"}`, nil)
	x.finish("POST /1.0/instances", `{"name": "a", "profiles": ["default", "p"], "config": {"user.a": "then"}, "source": {"type": "none"}}`)
	x.finish("POST /1.0/instances/a/snapshots", `{"name": "s"}`)
	x.finish("POST /1.0/instances", `{"name": "b", "profiles": ["disk"], "source": {"type": "none"}}`)
	x.finish("POST /1.0/instances/b/snapshots", `{"name": "s"}`)
	x.finish("PUT /1.0/instances/a", `{"profiles": ["default"], "config": {"user.a": "now"}}`)
	x.finish("PUT /1.0/instances/b", `{"profiles": ["default"]}`)
	c.must("DELETE /1.0/profiles/p", "", nil)
	c.must("DELETE /1.0/profiles/disk", "", nil)
	c.must("DELETE /1.0/storage-pools/spare", "", nil)

	op := x.finish("PUT /1.0/instances/a", `{"restore": "s"}`)
	if got := fmt.Sprint(op.Metadata["warnings"]); !strings.Contains(got, `profile "p" is no longer there`) {
		t.Errorf("warnings %s; want the profile that is gone", got)
	}
	a := x.instance("a")
	if a.Config["user.a"] != "then" || !slices.Equal(a.Profiles, []string{"default"}) {
		t.Errorf("restored: config %v, profiles %v; want those of the snapshot but p", a.Config, a.Profiles)
	}
	op = x.finish("PUT /1.0/instances/b", `{"restore": "s"}`)
	b := x.instance("b")
	if len(b.Profiles) != 0 || b.Devices["root"]["pool"] != "p" {
		t.Errorf("b: profiles %v, devices %v; want no profile, and the root disk where the files are (%v)", b.Profiles, b.Devices, op.Metadata)
	}
	for _, name := range []string{"a", "b"} {
		x.finish("PUT /1.0/instances/"+name+"/state", `{"action": "start"}`)
		x.finish("PUT /1.0/instances/"+name, `{"restore": "s"}`)
		if got := x.instance(name).Status; got != "Running" {
			t.Errorf("%s is %s after its restore; want Running as before", name, got)
		}
		x.finish("PUT /1.0/instances/"+name+"/state", `{"action": "stop", "force": true}`)
	}
}

// A copy of a snapshot is made without the profiles that are no longer there, also when the
// client names them, as stock lxc does.
func TestCopyOfASnapshotWithoutWhatIsGone(t *testing.T) {
	x := furnished(t)
	c := x.local
	c.must("POST /1.0/profiles", `{"name": "p", "config": {"user.p": "1"}}`, nil)
	c.must("POST /1.0/profiles", `{"name": "disk", "devices": {"root": {"type": "disk", "path": "/", "pool": "p"}}}`, nil)
	x.finish("POST /1.0/instances", `{"name": "a", "profiles": ["p", "disk"], "source": {"type": "none"}}`)
	x.finish("POST /1.0/instances/a/snapshots", `{"name": "s"}`)
	x.finish("PUT /1.0/instances/a", `{"profiles": ["default"]}`)
	c.must("DELETE /1.0/profiles/p", "", nil)
	c.must("DELETE /1.0/profiles/disk", "", nil)
	for name, profiles := range map[string]string{"b": "", "c": `"profiles": ["p", "disk"], `} {
		x.finish("POST /1.0/instances", `{"name": "`+name+`", `+profiles+`"source": {"type": "copy", "source": "a/s"}}`)
		made := x.instance(name)
		if len(made.Profiles) != 0 || made.Devices["root"]["pool"] != "p" {
			t.Errorf("%s: profiles %v, devices %v; want no profile, and a root disk in pool p", name, made.Profiles, made.Devices)
		}
	}
	c.refused("POST /1.0/instances", `{"name": "d", "profiles": ["q"], "source": {"type": "copy", "source": "a/s"}}`, 404, `profile "q" not found`)
}

// A copy with the name of its source is what stock lxc asks for when it is told to move an
// instance to another pool.
func TestAnInstanceIsNotCopiedOntoItself(t *testing.T) {
	x := furnished(t)
	x.create("a")
	x.local.refused("POST /1.0/instances", `{"name": "a", "source": {"type": "copy", "source": "a"}}`, 409, "can't be moved to another pool under its own name yet")
}

// A device whose network is gone is restored as it was. Only a start refuses it.
func TestRestoreWithoutItsNetwork(t *testing.T) {
	x := furnished(t)
	x.create("a")
	// The simulator has no networks, so the snapshot is given what it would have had.
	snapshot := state.Snapshot{
		Project: "default", Instance: "a", Name: "s", Architecture: "x86_64", Config: state.Config{}, Profiles: []string{"default"},
		Devices: state.Devices{"eth0": {"type": "nic", "network": "gone"}},
	}
	x.finish("POST /1.0/instances/a/snapshots", `{"name": "s"}`)
	_, err := x.store.Apply(t.Context(), store.DeleteSnapshot{Project: "default", Instance: "a", Name: "s"})
	x.must(err)
	_, err = x.store.Apply(t.Context(), store.CreateSnapshot{Snapshot: snapshot})
	x.must(err)
	op := x.finish("PUT /1.0/instances/a", `{"restore": "s"}`)
	if got := fmt.Sprint(op.Metadata["warnings"]); !strings.Contains(got, `device "eth0": network "gone" is no longer there`) {
		t.Errorf("warnings %s; want the network that is gone", got)
	}
	if got := x.instance("a").Devices["eth0"]["network"]; got != "gone" {
		t.Errorf("eth0 is on network %q; want the one of the snapshot", got)
	}
	failed := x.fail("PUT /1.0/instances/a/state", `{"action": "start"}`)
	if !strings.Contains(failed.Err, `network "gone" does not exist`) {
		t.Errorf("start: %q; want it to name the network", failed.Err)
	}
	x.finish("PUT /1.0/instances/a", `{"devices": {}, "profiles": ["default"]}`)
}

// fail makes a request whose operation must fail, and returns the operation.
func (x *realm) fail(line, body string) api.Operation {
	x.t.Helper()
	got := x.local.must(line, body, nil)
	var op api.Operation
	x.local.must("GET "+got.Operation+"/wait", "", &op)
	if op.Status != "Failure" {
		x.t.Fatalf("%s %s: %s; want Failure", line, body, op.Status)
	}
	return op
}

// A restore that can't succeed is refused before anything is recorded of it.
func TestRestoreOfWhatIsLost(t *testing.T) {
	x := furnished(t)
	x.create("a")
	x.finish("POST /1.0/instances/a/snapshots", `{"name": "s"}`)
	_, err := x.store.Apply(t.Context(), store.CreateSnapshot{Snapshot: state.Snapshot{Project: "default", Instance: "a", Name: "lost"}})
	x.must(err)
	if got := x.fail("PUT /1.0/instances/a", `{"restore": "lost"}`); !strings.Contains(got.Err, "files are gone") {
		t.Errorf("restore: %q; want it to say that the files are gone", got.Err)
	}
	if now, err := x.store.View().Instance("default", "a"); err != nil || now.Busy != "" {
		t.Errorf("busy with %q (%v); want nothing", now.Busy, err)
	}
	x.finish("DELETE /1.0/instances/a/snapshots/lost", "")
}

// What is recorded as under way and that nobody works on, as in an older copy of the
// database that was put back, ends by itself.
func TestUnderWayWithoutAnybody(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, input string
		runs        bool
		// want is the name the instance has at the end; empty when it is gone.
		want string
	}{
		"a creation that was never finished":        {kind: "create"},
		"a creation of what runs":                   {kind: "create", runs: true, want: "a"},
		"a deletion":                                {kind: "delete"},
		"a rename":                                  {kind: "rename", input: `{"new_name": "b"}`, want: "b"},
		"a restore of a snapshot that is there":     {kind: "restore", input: `{"snapshot": "s"}`, want: "a"},
		"a restore of a snapshot that is gone":      {kind: "restore", input: `{"snapshot": "t"}`, want: "a"},
		"a restore of a snapshot without its files": {kind: "restore", input: `{"snapshot": "lost"}`, want: "a"},
		"a restore while it runs":                   {kind: "restore", input: `{"snapshot": "s"}`, runs: true, want: "a"},
		"a kind that this release does not know":    {kind: "polish", want: "a"},
		"a rename whose new name can't be read":     {kind: "rename", input: `nonsense`, want: "a"},
		"a deletion of what runs, which can't be":   {kind: "delete", runs: true, want: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			x := furnished(t)
			x.create("a")
			x.finish("POST /1.0/instances/a/snapshots", `{"name": "s"}`)
			_, err := x.store.Apply(t.Context(), store.CreateSnapshot{Snapshot: state.Snapshot{Project: "default", Instance: "a", Name: "lost"}})
			x.must(err)
			if tc.runs {
				x.finish("PUT /1.0/instances/a/state", `{"action": "start"}`)
			}
			_, err = x.store.Apply(t.Context(), store.Begin{Intent: state.Intent{
				ID: "i", Member: "ant", Kind: tc.kind, Project: "default", Subject: store.SubjectInstance, Name: "a", Input: tc.input,
			}})
			x.must(err)
			ctx := t.Context()
			deadline := time.Now().Add(2 * time.Minute)
			for len(x.store.View().Intents("ant")) > 0 {
				if time.Now().After(deadline) || ctx.Err() != nil {
					t.Fatalf("still under way: %+v", *x.store.View().Intents("ant")[0])
				}
				time.Sleep(50 * time.Millisecond)
			}
			var names []string
			x.local.must("GET /1.0/instances", "", &names)
			want := []string{}
			if tc.want != "" {
				want = append(want, "/1.0/instances/"+tc.want)
			}
			if !slices.Equal(names, want) {
				t.Fatalf("instances %v; want %v", names, want)
			}
			if tc.want == "" {
				return
			}
			if now := x.instance(tc.want); (now.Status == "Running") != tc.runs {
				t.Errorf("it is %s; want it to run: %v", now.Status, tc.runs)
			}
			if now, err := x.store.View().Instance("default", tc.want); err != nil || now.Busy != "" {
				t.Errorf("busy with %q (%v); want nothing", now.Busy, err)
			}
		})
	}
}
