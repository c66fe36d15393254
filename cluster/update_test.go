package cluster

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// A client that writes back what it read some time ago does not mean the volatile keys; one
// that changes them and knows what they are is told that they are not its own.
func TestVolatileKeysAreTheServers(t *testing.T) {
	is := state.Config{"user.a": "1", "volatile.last_state.power": "STOPPED", "volatile.eth0.hwaddr": "00:16:3e:00:00:01"}
	read := state.Config{
		"user.a": "2", "volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1",
		"volatile.eth0.hwaddr": "00:16:3e:00:00:02", "volatile.apply_template": "copy",
	}
	want := state.Config{
		"user.a": "2", "volatile.last_state.power": "STOPPED",
		"volatile.eth0.hwaddr": "00:16:3e:00:00:02", "volatile.apply_template": "copy",
	}
	for _, changed := range []state.Config{{"volatile.last_state.power": "RUNNING"}, {"volatile.uuid": "7"}} {
		if err := keepVolatile(is, changed, true); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%v: %v; want ErrInvalid", changed, err)
		}
	}
	if err := keepVolatile(is, read, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read); diff != "" {
		t.Errorf("the keys differ:\n%s", diff)
	}
	left := state.Config{"user.a": "3"}
	if err := keepVolatile(is, left, true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state.Config{"user.a": "3", "volatile.last_state.power": "STOPPED", "volatile.eth0.hwaddr": "00:16:3e:00:00:01"}, left); diff != "" {
		t.Errorf("what was left out is gone:\n%s", diff)
	}
}
