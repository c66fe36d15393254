package filter

import (
	"errors"
	"strings"
	"testing"

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
		"status eq running":                            false,
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
