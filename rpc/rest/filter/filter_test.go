package filter

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"muster/state"
)

var object = map[string]any{
	"name": "my container", "status": "Running", "public": true, "size": 12.0,
	"config":        map[string]any{"image.os": "ubuntu", "user.a.b": "c"},
	"devices":       map[string]any{"eth0": map[string]any{"nictype": "bridged"}},
	"profiles":      []any{"default", "web"},
	"update_source": map[string]any{"protocol": "simplestreams"},
}

func TestWhatFiltersSelect(t *testing.T) {
	for source, want := range map[string]bool{
		"":                       true,
		`name eq "my container"`: true,
		`name eq 'my container' and status eq Running`: true,
		"status eq running":                            true,
		"status eq run":                                false,
		"status eq run.*":                              true,
		"status ne run.*":                              false,
		"status eq stopped|running":                    true,
		"config.user.a.b eq C":                         true,
		"config.user.a.b eq c[":                        false,
		"profiles eq w.b":                              true,
		"status ne Stopped":                            true,
		"nosuch eq x":                                  false,
		"nosuch ne x":                                  true,
		"config.image.os eq ubuntu":                    true,
		"config.user.a.b eq c":                         true,
		"devices.eth0.nictype eq bridged":              true,
		"Config.image.os eq ubuntu":                    true,
		"public eq true":                               true,
		"size eq 12":                                   true,
		"profiles eq web":                              true,
		"not status eq Running":                        false,
		"not (status eq Running and size eq 13)":       true,
		"UpdateSource.Protocol eq simplestreams":       true,
		// and and or bind alike, from the left.
		"status eq Running or status eq Running and size eq 13":   false,
		"status eq Running or (status eq Running and size eq 13)": true,
		"((status eq Running))":                                   true,
		`status eq "Running"`:                                     true,
	} {
		f, err := Parse(source)
		if err != nil {
			t.Errorf("Parse(%q): %v", source, err)
			continue
		}
		if got := f.Match(object); got != want {
			t.Errorf("%q selects %v; want %v", source, got, want)
		}
	}
}

// embedded, shown and stamp are what the API's own types are made of.
type embedded struct {
	Name   string            `json:"name"`
	Config map[string]string `json:"config"`
	Extra  string            `json:"extra,omitempty"`
}

type stamp struct{ text string }

func (s stamp) MarshalJSON() ([]byte, error) { return json.Marshal(s.text) }

type shown struct {
	embedded

	CreatedAt time.Time                    `json:"created_at"`
	Size      int64                        `json:"size"`
	Count     uint32                       `json:"count"`
	Share     float64                      `json:"share"`
	Public    bool                         `json:"public"`
	Profiles  []string                     `json:"profiles"`
	Devices   map[string]map[string]string `json:"devices"`
	Source    *embedded                    `json:"update_source"`
	Nothing   *embedded                    `json:"nothing"`
	Stamp     stamp                        `json:"stamp"`
	Any       any                          `json:"any"`
	Data      []byte                       `json:"data"`
	Zero      time.Time                    `json:"zero,omitzero"`
	Hidden    string                       `json:"-"`
	Untagged  string
}

// decodedForm is an object as a client sees it.
func decodedForm(t *testing.T, object any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var seen map[string]any
	if err := json.Unmarshal(encoded, &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestAStructIsSelectedLikeItsJSON(t *testing.T) {
	given := shown{
		embedded:  embedded{Name: "c1", Config: map[string]string{"image.os": "ubuntu", "user.a.b": "c"}},
		CreatedAt: time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC), Size: 12, Count: 3, Share: 0.5, Public: true,
		Profiles: []string{"default", "web"}, Devices: map[string]map[string]string{"eth0": {"nictype": "bridged"}},
		Source: &embedded{Name: "there"}, Stamp: stamp{"sealed"}, Any: map[string]any{"deep": 1}, Data: []byte("abc"),
		Hidden: "h", Untagged: "u",
	}
	for source, want := range map[string]bool{
		"name eq c1":                           true,
		"Name eq c1":                           true,
		"embedded.name eq c1":                  false,
		"config.image.os eq ubuntu":            true,
		"config.user.a.b eq c":                 true,
		"config.user.a.b eq d":                 false,
		"extra ne x":                           true,
		`extra eq ""`:                          false,
		"created_at eq 2026-11-21T01:02:03Z":   true,
		"CreatedAt eq 2026-11-21T01:02:03Z":    true,
		"size eq 12":                           true,
		"size eq 12.0":                         true,
		"size eq twelve":                       false,
		"count eq 3":                           true,
		"share eq 0.5":                         true,
		"public eq TRUE":                       true,
		"profiles eq web":                      true,
		"profiles eq db":                       false,
		"devices.eth0.nictype eq bridged":      true,
		"update_source.name eq there":          true,
		"UpdateSource.Name eq there":           true,
		"nothing.name eq x":                    false,
		"nothing eq null":                      false,
		"stamp eq sealed":                      true,
		"any.deep eq 1":                        true,
		"data eq YWJj":                         true,
		"zero eq 0001-01-01T00:00:00Z":         false,
		"hidden eq h":                          false,
		"untagged eq u":                        true,
		"config eq ubuntu":                     false,
		"name eq c1 and not (public eq false)": true,
	} {
		f, err := Parse(source)
		if err != nil {
			t.Fatalf("Parse(%q): %v", source, err)
		}
		for how, object := range map[string]any{"struct": given, "pointer": &given, "JSON": decodedForm(t, given)} {
			if got := f.Match(object); got != want {
				t.Errorf("%q selects the %s: %v; want %v", source, how, got, want)
			}
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	f, err := Parse("status eq Running and config.image.os eq ubuntu or name eq c1")
	if err != nil {
		b.Fatal(err)
	}
	given := &shown{embedded: embedded{Name: "c1", Config: map[string]string{"image.os": "ubuntu"}}}
	for b.Loop() {
		if !f.Match(given) {
			b.Fatal("not selected")
		}
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	for source, want := range map[string]string{
		"name":                         "eq or ne",
		"name eq":                      "value is missing",
		"name is x":                    `"is"`,
		"name eq x and":                "missing",
		"name eq x y":                  `"y"`,
		"(name eq x":                   "not closed",
		`name eq "x`:                   "not closed",
		")":                            "field",
		strings.Repeat("not ", 200):    "inside each other",
		"name eq x)":                   `")"`,
		strings.Repeat("(", 101) + "x": "inside each other",
	} {
		_, err := Parse(source)
		if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "character") {
			t.Errorf("Parse(%.30q) = %v; want its place and %s", source, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`name eq "my container" and not (a.b ne c or d eq e)`)
	f.Fuzz(func(_ *testing.T, source string) {
		parsed, err := Parse(source)
		if err == nil {
			parsed.Match(object)
		}
	})
}
