package runtime

import (
	"errors"
	"strings"
	"testing"

	"muster/state"
)

func TestIDMapFromSubids(t *testing.T) {
	for name, tc := range map[string]struct {
		users, groups string
		want          IDMap
	}{
		"what root is given":              {"root:100000:10000001", "root:100000:10000001", IDMap{100000, 10000001}},
		"only what both files give":       {"root:100000:200000", "root:150000:200000", IDMap{150000, 150000}},
		"the largest of many":             {"root:100000:65536\nroot:1000000:500000", "root:100000:65536\nroot:1000000:500000", IDMap{1000000, 500000}},
		"a huge range is cut":             {"root:65536:4000000000", "root:65536:4000000000", IDMap{65536, DefaultIDMap.Size}},
		"root by number":                  {"0:300000:65536", "0:300000:65536", IDMap{300000, 65536}},
		"others' ranges are not for us":   {"alice:100000:65536", "alice:100000:65536", DefaultIDMap},
		"too small a range is of no use":  {"root:100000:1000", "root:100000:1000", DefaultIDMap},
		"nothing in common":               {"root:100000:65536", "root:200000:65536", DefaultIDMap},
		"lines that are none are skipped": {"# root\nroot:x:1\nroot:100000:70000:", "root:100000:70000", DefaultIDMap},
	} {
		users, err := subordinate(strings.NewReader(tc.users), "root", "0")
		if err != nil {
			t.Fatal(err)
		}
		groups, err := subordinate(strings.NewReader(tc.groups), "root", "0")
		if err != nil {
			t.Fatal(err)
		}
		got := common(users, groups)
		if got != tc.want {
			t.Errorf("%s: %+v; want %+v", name, got, tc.want)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []IDMap{{}, {Host: 1, Size: 1}, {Host: 4_000_000_000, Size: 4_000_000_000}, {Host: 0, Size: 65536}} {
		if err := bad.Validate(); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%+v: %v; want ErrInvalid", bad, err)
		}
	}
	if m, err := DetectIDMap(); err != nil || m.Validate() != nil {
		t.Errorf("DetectIDMap: %+v, %v; want a map that works", m, err)
	}
}

func TestEnviron(t *testing.T) {
	got := strings.Join(ExecSpec{UID: 5, Env: map[string]string{"PATH": "/mine", "B": "1"}}.Environ(), " ")
	if want := "B=1 HOME=/ LANG=C.UTF-8 PATH=/mine container=lxc"; got != want {
		t.Errorf("Environ: %s; want %s", got, want)
	}
}
