package client

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
)

func TestJoinTokenOf(t *testing.T) {
	// As LXD 5.0.2 writes it.
	op := api.Operation{ID: "1", Metadata: map[string]any{
		"serverName": "m2", "fingerprint": "ab", "secret": "s", "addresses": []any{"192.0.2.1:8443"}, "expiresAt": "2026-11-21T10:37:43.5Z",
	}}
	want := api.ClusterMemberJoinToken{
		ServerName: "m2", Fingerprint: "ab", Secret: "s", Addresses: []string{"192.0.2.1:8443"},
		ExpiresAt: time.Date(2026, 11, 21, 10, 37, 43, 500e6, time.UTC),
	}
	got, err := joinTokenOf(op)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, metadata := range map[string]map[string]any{
		"nothing":          nil,
		"a client's token": {"secret": "s", "fingerprint": "ab", "request": map[string]any{"name": "alice"}},
		"another shape":    {"serverName": []any{}, "secret": "s"},
	} {
		if token, err := joinTokenOf(api.Operation{ID: "2", Metadata: metadata}); err == nil {
			t.Errorf("%s was taken for a join token: %+v", name, token)
		}
	}
}
