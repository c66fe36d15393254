package rest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// tests returns the names of all test functions of the module.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, match := range testFunction.FindAllSubmatch(source, -1) {
			found[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestExtensionsAreServedAndTested(t *testing.T) {
	all, rows := tests(t), map[string]bool{}
	for _, extension := range extensions {
		if rows[extension.name] {
			t.Errorf("%s has two rows", extension.name)
		}
		rows[extension.name] = true
		if !all[extension.test] || extension.text == "" {
			t.Errorf("%s: no test is called %q, or it says nothing (%q)", extension.name, extension.test, extension.text)
		}
	}
	named := slices.Clone(always)
	for _, route := range table(everything()) {
		named = append(named, route.announces...)
		for _, name := range route.announces {
			if !rows[name] {
				t.Errorf("%s announces %s, which has no row in extensions", route.pattern, name)
			}
		}
	}
	for name := range rows {
		if !slices.Contains(named, name) {
			t.Errorf("no route announces %s", name)
		}
	}
}

func TestOnlyWhatIsServedIsAnnounced(t *testing.T) {
	without := everything()
	without.Networks, without.Projects = nil, nil
	names := announced(table(without))
	for name, want := range map[string]bool{"etag": true, "storage": true, "network": false, "network_leases": false, "projects": false} {
		if slices.Contains(names, name) != want {
			t.Errorf("without networks and projects: %s announced: %v, want %v", name, !want, want)
		}
	}
}
