// Package arch holds the repository to its own shape: which room may look into
// which, that every package says what it is, and the traps no SQL may step in.
//
// It tests text and imports only; it runs nothing of muster.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayImport says which rooms of muster each room may import, besides its own
// sub-packages. The longest matching prefix of a package decides.
var mayImport = map[string][]string{
	"muster/state":       nil,
	"muster/state/store": {"muster/state"},
	"muster/scheduler":   {"muster/state"},
	"muster/node":        {"muster/state"},
	"muster/cluster":     {"muster/state", "muster/scheduler", "muster/node"},
	"muster/rpc":         {"muster/state", "muster/scheduler", "muster/node", "muster/cluster"},
	// Others build on the wire types and the client, so these two bring
	// nothing of muster with them.
	"muster/rpc/rest/api": {},
	"muster/rpc/client":   {"muster/rpc/rest/api"},
	"muster/cmd":          {"muster/state", "muster/scheduler", "muster/node", "muster/cluster", "muster/rpc"},
	"muster/test":         {"muster"},
}

// onlyIn says where a library may be used at all.
var onlyIn = map[string][]string{
	"github.com/lxc/go-lxc":           {"muster/node/runtime/lxc", "muster/cmd/muster-shim"},
	"github.com/canonical/go-dqlite":  {"muster/state/store"},
	"github.com/hashicorp/raft":       {"muster/cluster/coord"},
	"github.com/hashicorp/memberlist": {"muster/cluster/gossip"},
	"github.com/spf13/cobra":          {"muster/cmd"},
	"github.com/vishvananda/netlink":  {"muster/node", "muster/test"},
	"github.com/google/nftables":      {"muster/node/network", "muster/test"},
}

// barred says what a room may not import even of the standard library.
var barred = map[string][]string{
	// Placement is pure: no clock, no host, no network, no lots.
	"muster/scheduler": {"time", "os", "net", "math/rand", "crypto/rand"},
}

func within(pkg, room string) bool {
	return pkg == room || strings.HasPrefix(pkg, room+"/")
}

func roomOf(pkg string) string {
	best := ""
	for room := range mayImport {
		if within(pkg, room) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "muster/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 10 {
		t.Fatalf("go list named %d packages; want the whole module", len(lines))
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		pkg, imports := fields[0], fields[1:]
		room := roomOf(pkg)
		if room == "" {
			t.Errorf("%s is in no room: give it one in mayImport", pkg)
			continue
		}
		for _, imported := range imports {
			if within(imported, "muster") && !within(imported, room) {
				if !slices.ContainsFunc(mayImport[room], func(r string) bool { return within(imported, r) }) {
					t.Errorf("%s imports %s; %s may import only %v", pkg, imported, room, mayImport[room])
				}
			}
			for _, name := range barred[room] {
				if within(imported, name) {
					t.Errorf("%s imports %s, which the room is barred from", pkg, imported)
				}
			}
			for library, rooms := range onlyIn {
				if within(imported, library) && !slices.ContainsFunc(rooms, func(r string) bool { return within(pkg, r) }) {
					t.Errorf("%s imports %s, which only %v may", pkg, library, rooms)
				}
			}
		}
	}
}

func goFiles(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin" || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]int{}
	goFiles(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		if file.Name.Name == "keep" || strings.HasSuffix(file.Name.Name, "_test") || ast.IsGenerated(file) {
			return
		}
		dir := filepath.Dir(path)
		if _, seen := documented[dir]; !seen {
			documented[dir] = 0
		}
		if file.Doc != nil {
			documented[dir]++
		}
	})
	for dir, n := range documented {
		if n != 1 {
			t.Errorf("%s has %d package comments; want exactly one", dir, n)
		}
	}
}

// The statements that libdqlite 1.11.1 loses rows or aborts on (state/store/DESIGN.md).
var trap = regexp.MustCompile(`(?i)\bRETURNING\b|\bjson_each\b`)

func TestSQLAvoidsTheTrapsOfDqlite(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("../../state/store", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".sql") {
			return err
		}
		seen++
		for number, line := range readLines(t, path) {
			code, _, _ := strings.Cut(line, "--")
			if trap.MatchString(code) {
				t.Errorf("%s:%d: %q: libdqlite cannot run this", path, number+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("no SQL files found")
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}
