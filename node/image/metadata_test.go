package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/state"
)

func TestParseMetadata(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want Metadata
	}{
		"as distributions write it": {
			"architecture: x86_64\ncreation_date: 1424284563\nproperties:\n  description: Debian 12\n  os: debian\n  release: \"12\"\ntemplates:\n" +
				"  /etc/hosts:\n    when:\n      - create\n      - rename\n    template: hosts.tpl\n    properties:\n      foo: bar\n",
			Metadata{
				Architecture: "x86_64", CreationDate: 1424284563, Properties: map[string]string{"description": "Debian 12", "os": "debian", "release": "12"},
				Templates: map[string]Template{"/etc/hosts": {When: []Trigger{TriggerCreate, TriggerRename}, Template: "hosts.tpl", Properties: map[string]string{"foo": "bar"}}},
			},
		},
		"as JSON": {
			`{"architecture": "aarch64", "creation_date": 5, "properties": {"os": "x"}, "templates": {"/a": {"when": ["start"], "create_only": true, "template": "a.tpl"}}}`,
			Metadata{
				Architecture: "aarch64", CreationDate: 5, Properties: map[string]string{"os": "x"},
				Templates: map[string]Template{"/a": {When: []Trigger{TriggerStart}, CreateOnly: true, Template: "a.tpl"}},
			},
		},
		"values that YAML would take for numbers, dates and nothing": {
			"architecture: x86_64\nproperties:\n  release: 22.10\n  octal: 012\n  date: 2024-01-02\n  yes: true\n  no: ~\n  none:\n  big: 1e3\n  text: |\n    two\n    lines\n",
			Metadata{Architecture: "x86_64", Properties: map[string]string{
				"release": "22.10", "octal": "012", "date": "2024-01-02", "yes": "true", "no": "", "none": "", "big": "1e3", "text": "two\nlines\n",
			}},
		},
		"dates as texts and fractions":      {"architecture: i686\ncreation_date: \"12\"\nexpiry_date: 13.7\n", Metadata{Architecture: "i686", CreationDate: 12, ExpiryDate: 13}},
		"keys of newer writers":             {"architecture: x86_64\nname: x\nfuture: {a: [1, 2]}\n", Metadata{Architecture: "x86_64"}},
		"nothing but an architecture":       {"architecture: amd64", Metadata{Architecture: "x86_64"}},
		"empty maps":                        {"architecture: x86_64\nproperties:\ntemplates: {}\n", Metadata{Architecture: "x86_64", Properties: map[string]string{}, Templates: map[string]Template{}}},
		"a date of expiry that never comes": {"architecture: x86_64\nexpiry_date: -1\n", Metadata{Architecture: "x86_64"}},
		"triggers that nobody pulls": {
			"architecture: x86_64\ntemplates:\n  /a: {when: [\"\"], template: a}\n  /b: {when: [boot, start], template: b}\n  /c: {when: , template: \"\"}\n",
			Metadata{Architecture: "x86_64", Templates: map[string]Template{
				"/a": {When: []Trigger{""}, Template: "a"}, "/b": {When: []Trigger{"boot", TriggerStart}, Template: "b"}, "/c": {},
			}},
		},
		"paths that are not clean": {
			"architecture: x86_64\ntemplates:\n  etc/a: {template: a}\n  //etc//x/../b: {template: b}\n",
			Metadata{Architecture: "x86_64", Templates: map[string]Template{"/etc/a": {Template: "a"}, "/etc/b": {Template: "b"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMetadata([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ParseMetadata (-want +got):\n%s", diff)
			}
			encoded, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseMetadata(encoded); err != nil || !cmp.Equal(got, again, cmpopts.EquateEmpty()) {
				t.Errorf("after Encode: %v\n%s", err, cmp.Diff(got, again))
			}
		})
	}
}

func TestMetadataThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":                       {"", "architecture is missing"},
		"a list":                        {"- a\n", "want a map"},
		"a word":                        {"word", "want a map"},
		"two documents":                 {"architecture: x86_64\n---\narchitecture: x86_64\n", "2 documents"},
		"a key twice":                   {"architecture: x86_64\narchitecture: i686\n", "architecture"},
		"a property twice":              {"architecture: x86_64\nproperties:\n  a: 1\n  a: 2\n", "[4:3]"},
		"a property that is a list":     {"architecture: x86_64\nproperties:\n  a: [1]\n", `line 3: properties: "a": want a plain value`},
		"a date that is a word":         {"architecture: x86_64\ncreation_date: today\n", "line 2: creation_date: want seconds"},
		"a date before time":            {"architecture: x86_64\ncreation_date: -1\n", "creation_date is -1"},
		"a date beyond all years":       {"architecture: x86_64\nexpiry_date: 99999999999999\n", "expiry_date"},
		"a tag":                         {"architecture: !!binary eDg2XzY0\n", "want a plain value"},
		"an alias":                      {"architecture: &a x86_64\nproperties: {b: *a}\n", "want a plain value"},
		"a merge of maps":               {"architecture: x86_64\nproperties:\n  <<: *a\n", "line 3"},
		"a template without a file":     {"architecture: x86_64\ntemplates: {/a: {when: [start]}}\n", "name of a file"},
		"a template for no path":        {"architecture: x86_64\ntemplates: {\"\": {when: [start], template: x}}\n", "absolute path"},
		"a template that climbs":        {"architecture: x86_64\ntemplates: {a/../../b: {when: [start], template: x}}\n", "absolute path"},
		"a template's path twice":       {"architecture: x86_64\ntemplates: {/a: {when: [start], template: x}, a: {when: [start], template: x}}\n", "once"},
		"a trigger that is no text":     {"architecture: x86_64\ntemplates: {/a: {when: [\"a\\0b\"], template: x}}\n", "not text"},
		"a template for the top":        {"architecture: x86_64\ntemplates: {/: {when: [start], template: x}}\n", "absolute path"},
		"when that is a word":           {"architecture: x86_64\ntemplates: {/a: {when: start, template: x}}\n", "a list of create"},
		"create_only that is a word":    {"architecture: x86_64\ntemplates: {/a: {create_only: maybe, template: x}}\n", "true or false"},
		"a property that is no text":    {"architecture: x86_64\nproperties: {a: \"b\\0\"}\n", "that are text"},
		"brackets in brackets":          {strings.Repeat("[", 30_000), "more than 1000"},
		"lists in lists":                {strings.Repeat("- ", 30_000), "too deep"},
		"a tab where none may be":       {"architecture: x86_64\nproperties:\n\ta: b\n", "YAML"},
		"a byte that is no text":        {"architecture: x86_64\x00", "not text"},
		"more bytes than anybody needs": {"architecture: x86_64 #" + strings.Repeat("x", MaxMetadata), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			m, err := ParseMetadata([]byte(tc.text))
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ParseMetadata = %+v, %v; want an invalid file and %q", m, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the message has several lines: %q", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s to refuse it", took)
			}
		})
	}
}

func TestArchitectureNames(t *testing.T) {
	for name, want := range map[string]string{
		"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686", "ppc64el": "ppc64le", "s390x": "s390x", "riscv64": "riscv64", "vax": "vax",
	} {
		if got := KernelArchitecture(name); got != want {
			t.Errorf("KernelArchitecture(%q) = %q; want %q", name, got, want)
		}
	}
}

func TestReadMetadataFollowsNoLink(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "m")
	must(t, os.WriteFile(outside, []byte(goodMetadata), 0o600))
	in := t.TempDir()
	if _, err := ReadMetadata(in); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("ReadMetadata of nothing = %v; want not found", err)
	}
	must(t, os.Symlink(outside, filepath.Join(in, "metadata.yaml")))
	if m, err := ReadMetadata(in); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("ReadMetadata through a link = %+v, %v; want it refused", m, err)
	}
}

func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(goodMetadata))
	f.Add([]byte("templates:\n  /etc/x:\n    when: [create]\n    template: x.tpl\narchitecture: arm64\n"))
	f.Add([]byte(`{"architecture": "x86_64", "properties": {"a": "b\n\u0000"}}`))
	f.Add([]byte("architecture: x86_64\nproperties: {? a : |-\n  b}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMetadata(data)
		if err != nil {
			if !errors.Is(err, state.ErrInvalid) {
				t.Errorf("refused without a kind: %v", err)
			}
			return
		}
		encoded, err := m.Encode()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := ParseMetadata(encoded)
		if err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, encoded)
		}
		if fmt.Sprint(again) != fmt.Sprint(m) {
			t.Fatalf("read %+v, written, read again %+v\n%s", m, again, encoded)
		}
	})
}
