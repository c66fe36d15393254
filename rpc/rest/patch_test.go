package rest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// A PATCH that somebody else was faster than looks again: what was faster is here by then.
func TestAPatchThatLostARace(t *testing.T) {
	tries := 0
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "/", strings.NewReader(`{}`))
	_, err := patched(request, func([]byte) (state.Revision, func(state.Revision) error, error) {
		tries++
		if tries == 2 {
			return 8, func(state.Revision) error { return nil }, nil
		}
		return 7, func(state.Revision) error { return state.Errorf(state.ErrStale, "somebody was faster") }, nil
	})
	if err != nil || tries != 2 {
		t.Errorf("%v after %d tries; want success with the second", err, tries)
	}
}

// An empty value removes an option of a device, as it removes a key of a configuration.
func TestEmptyOptionsAreRemoved(t *testing.T) {
	got := withoutNil(map[string]map[string]string{
		"eth0": {"type": "nic", "network": "lan", "hwaddr": ""}, "gone": nil, "bare": {},
	})
	want := state.Devices{"eth0": {"type": "nic", "network": "lan"}, "bare": {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}
