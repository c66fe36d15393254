package yamldoc_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func TestMarshal(t *testing.T) {
	profile := api.Profile{
		ProfilePut: api.ProfilePut{
			Config: map[string]string{
				"limits.cpu": "2", "security.nesting": "true",
				"user.user-data": "#cloud-config\npackages:\n- vim\n", "user.none": "",
			},
			Description: "two: cores",
			Devices:     map[string]map[string]string{"root": {"path": "/", "type": "disk"}, "none": {}},
		},
		Name: "two", UsedBy: []string{"/1.0/instances/c1", "/1.0/instances/c2?project=x"},
	}
	want := `config:
  limits.cpu: "2"
  security.nesting: "true"
  user.none: ""
  user.user-data: |
    #cloud-config
    packages:
    - vim
description: "two: cores"
devices:
  none: {}
  root:
    path: /
    type: disk
name: two
used_by:
- /1.0/instances/c1
- "/1.0/instances/c2?project=x"
`
	got, err := yamldoc.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	list, err := yamldoc.Marshal([]any{map[string]any{"a": 1, "b": []any{"x", []any{"y", true}}}, nil, "s", []any{}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("- a: 1\n  b:\n  - x\n  - - \"y\"\n    - true\n- null\n- s\n- []\n", string(list)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnmarshal(t *testing.T) {
	type doc struct {
		api.InstancePut
		Name string     `json:"name"`
		At   *time.Time `json:"at"`
		Free any        `json:"free"`
	}
	at := time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC)
	for name, tc := range map[string]struct {
		text    string
		want    doc
		wantErr string
	}{
		"scalars become the strings they were written as": {
			text: "config:\n  limits.cpu: 2\n  security.nesting: true\n  user.mode: 0755\n  user.v: 1.10\n  user.none:\n  user.n: ~\n",
			want: doc{InstancePut: api.InstancePut{Config: map[string]string{
				"limits.cpu": "2", "security.nesting": "true", "user.mode": "0755", "user.v": "1.10", "user.none": "", "user.n": "",
			}}},
		},
		"embedded fields, lists and times": {
			text: "name: 7\nephemeral: true\nprofiles: [default, 2]\nat: 2026-11-21T01:02:03Z\n",
			want: doc{Name: "7", At: &at, InstancePut: api.InstancePut{Ephemeral: true, Profiles: []string{"default", "2"}}},
		},
		"anchors and merges": {
			text: "devices:\n  a: &a\n    type: nic\n    mtu: 9000\n  b:\n    <<: *a\n    mtu: 1500\n",
			want: doc{InstancePut: api.InstancePut{Devices: map[string]map[string]string{
				"a": {"type": "nic", "mtu": "9000"}, "b": {"type": "nic", "mtu": "1500"},
			}}},
		},
		"free values keep their type":      {text: "free: {a: 1, b: [true, x]}", want: doc{Free: map[string]any{"a": 1.0, "b": []any{true, "x"}}}},
		"blocks keep their lines":          {text: "name: |\n  a\n   b\n", want: doc{Name: "a\n b\n"}},
		"JSON is YAML":                     {text: `{"name": "x", "config": {"a": "b"}}`, want: doc{Name: "x", InstancePut: api.InstancePut{Config: map[string]string{"a": "b"}}}},
		"an empty document":                {text: ""},
		"nothing but comments":             {text: "# nothing\n# here\n"},
		"an unknown key is named":          {text: "nombre: x\n", wantErr: `unknown field "nombre"`},
		"a list where a map should be":     {text: "config: [a]\n", wantErr: "cannot unmarshal array"},
		"an alias to nothing":              {text: "name: *x\n", wantErr: "stands for nothing"},
		"a key that is there twice":        {text: "name: a\nname: b\n", wantErr: `line 2: key "name" is there twice`},
		"two documents":                    {text: "name: a\n---\nname: b\n", wantErr: "one YAML document"},
		"broken indentation names a line":  {text: "config:\n  a: b\n c: d\n", wantErr: "[3:"},
		"an unquoted infinity is no value": {text: "free: .inf\n", wantErr: "can't be used here"},
	} {
		t.Run(name, func(t *testing.T) {
			var got doc
			err := yamldoc.Unmarshal([]byte(tc.text), &got)
			switch {
			case tc.wantErr == "" && err != nil:
				t.Fatal(err)
			case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
				t.Fatalf("error %v, want %q", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); tc.wantErr == "" && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever configuration says, editing it without a change changes nothing.
func TestRoundTrip(t *testing.T) {
	hard := []string{
		"1e3", ".inf", "---", "? x", "a\r\nb", "\x01", "12:30:45", "~", "null", "Yes", "0x1f", "- a", "a: b", "a #b", "#a",
		" a", "a ", "a\n", "\n", "\na", "a\n\n", "a\n b\n", "  a\nb", "a\tb", "\ta\nb", "a\n\n\nb", "*a", "&a", "!a", "@a", "%a",
		"'", "\"", "\\", "{", "}", "[", "]", ",", "|", ">", "<<", "=", "ü", "\u2028", "\ufeff", "\u0085", "a:", ":a", "a\nb: c\n# d", "", "😀",
		"10.0.0.1", "10.0.0.1/24", "1GiB", "1.5GiB", "1EB", "100kB", "/", "1.2.3", "1/2", "00:16:3e:01:02:03", "2026-11-21",
	}
	text := rapid.OneOf(rapid.SampledFrom(hard), rapid.String(), rapid.StringMatching(`[a-z .:#\n|>-]{0,12}`))
	rapid.Check(t, func(t *rapid.T) {
		want := api.ProfilePut{
			Description: text.Draw(t, "description"),
			Config:      rapid.MapOf(text, text).Draw(t, "config"),
			Devices:     rapid.MapOf(text, rapid.MapOf(text, text)).Draw(t, "devices"),
		}
		document, err := yamldoc.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got api.ProfilePut
		if err := yamldoc.Unmarshal(document, &got); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		// Bytes that are not UTF-8 can't be said in JSON either.
		encoded, _ := json.Marshal(want)
		want = api.ProfilePut{}
		if err := json.Unmarshal(encoded, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, document)
		}
	})
}
