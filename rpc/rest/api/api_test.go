package api_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
)

// keys returns the JSON keys of v, sorted.
func keys(t *testing.T, v any) []string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(m))
}

// The lists were read off a running LXD 5.0.2.
func TestKeysAreThoseThatClientsKnow(t *testing.T) {
	for name, tc := range map[string]struct {
		value any
		want  []string
	}{
		"an envelope has all seven keys": {api.Response{}, []string{
			"error", "error_code", "metadata", "operation", "status", "status_code", "type",
		}},
		"an instance": {api.Instance{
			ExpandedConfig:  map[string]string{"a": "b"},
			ExpandedDevices: map[string]map[string]string{"a": {}},
		}, []string{
			"architecture", "config", "created_at", "description", "devices", "ephemeral", "expanded_config",
			"expanded_devices", "last_used_at", "location", "name", "profiles", "project", "stateful", "status",
			"status_code", "type",
		}},
		"an operation": {api.Operation{}, []string{
			"class", "created_at", "description", "err", "id", "location", "may_cancel", "metadata", "resources",
			"status", "status_code", "updated_at",
		}},
		"a profile":  {api.Profile{}, []string{"config", "description", "devices", "name", "used_by"}},
		"a network":  {api.Network{}, []string{"config", "description", "locations", "managed", "name", "status", "type", "used_by"}},
		"a pool":     {api.StoragePool{}, []string{"config", "description", "driver", "locations", "name", "status", "used_by"}},
		"an unknown": {api.ServerUntrusted{}, []string{"api_extensions", "api_status", "api_version", "auth", "auth_methods", "public"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, keys(t, tc.value)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusCodes(t *testing.T) {
	for code, name := range map[api.StatusCode]string{
		100: "Operation created", 103: "Running", 110: "Frozen", 113: "Ready", 200: "Success", 400: "Failure", 401: "Cancelled",
	} {
		if got := code.String(); got != name {
			t.Errorf("code %d is %q, want %q", code, got, name)
		}
		if got := api.StatusCodeNamed(name); got != code {
			t.Errorf("name %q is %d, want %d", name, got, code)
		}
	}
	for code, final := range map[api.StatusCode]bool{api.Running: false, api.Cancelling: false, api.Success: true, api.Failure: true, api.Cancelled: true} {
		if code.Final() != final {
			t.Errorf("%v.Final() = %v", code, !final)
		}
	}
}

func TestControlArgs(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want api.ControlArgs
		bad  bool
	}{
		"strings, as documented":    {text: `{"width":"80","height":"25"}`, want: api.ControlArgs{"width": "80", "height": "25"}},
		"numbers, as some do":       {text: `{"width":80}`, want: api.ControlArgs{"width": "80"}},
		"anything else is refused":  {text: `{"width":[1]}`, bad: true},
		"a list is not an argument": {text: `[]`, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			var got api.ControlArgs
			err := json.Unmarshal([]byte(tc.text), &got)
			if (err != nil) != tc.bad {
				t.Fatalf("error %v, want one: %v", err, tc.bad)
			}
			if diff := cmp.Diff(tc.want, got); !tc.bad && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTokensRoundTrip(t *testing.T) {
	token := api.CertificateAddToken{
		ClientName: "me", Fingerprint: "ab", Addresses: []string{"10.0.0.1:8443"}, Secret: "s",
		ExpiresAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	got, err := api.ParseCertificateAddToken(token.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(token, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", "###", "bm90IGpzb24=", "e30="} {
		if _, err := api.ParseCertificateAddToken(bad); err == nil {
			t.Errorf("%q was taken for a token", bad)
		}
	}
	join := api.ClusterMemberJoinToken{ServerName: "ant", Fingerprint: "ab", Addresses: []string{"a:1"}, Secret: "s"}
	if got, err := api.ParseClusterMemberJoinToken(join.String()); err != nil || got.ServerName != "ant" {
		t.Errorf("join token: %+v, %v", got, err)
	}
}
