package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waiting are the rooms in which a wait may be for another member.
var waiting = []string{"cluster", "rpc/mux", "rpc/peer", "rpc/rest", "cmd/musterd", "state/store", "state/readindex"}

// waitCalls are the methods that wait by their name, whoever has them.
var waitCalls = []string{"Wait", "Recv", "RoundTrip", "WaitRevision", "WaitApplied", "WaitOperation"}

// TestWaits holds each place that waits to waits.txt, which says what ends it. What waits by
// calling such a place needs no line.
func TestWaits(t *testing.T) {
	listed := map[string]bool{}
	list, err := os.ReadFile("waits.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, " | ")
		if len(fields) != 3 || strings.TrimSpace(fields[1]) == "" || strings.TrimSpace(fields[2]) == "" {
			t.Errorf("waits.txt: %q; want PACKAGE FUNCTION | what it waits for | how it ends", line)
			continue
		}
		if listed[fields[0]] {
			t.Errorf("waits.txt names %q twice", fields[0])
		}
		listed[fields[0]] = true
	}
	found := map[string]bool{}
	for _, room := range waiting {
		for name := range waitsIn(t, room) {
			found[name] = true
			if !listed[name] {
				t.Errorf("%s waits, and test/arch/waits.txt does not say for what and what ends that: add a line; a wait for another member ends when that member is declared offline", name)
			}
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("waits.txt: %q does not wait (any more): remove the line", name)
		}
	}
}

// waitsIn returns the functions of the room and the packages below it that wait.
func waitsIn(t *testing.T, room string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	root := filepath.Join("..", "..", room)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Body != nil && waits(f.Body) {
				found[filepath.Join(room, below)+" "+nameOf(f)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// nameOf is a function's name, with its receiver's type before it.
func nameOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	if name, ok := receiver.(*ast.Ident); ok {
		return name.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// waits reports whether something in the body waits: a select without a default, a receive
// outside of one, a method that waits, or a call over gRPC.
func waits(body *ast.BlockStmt) bool {
	found := false
	inSelect := map[ast.Node]bool{}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectStmt:
			found = found || !slices.ContainsFunc(n.Body.List, func(s ast.Stmt) bool { return s.(*ast.CommClause).Comm == nil })
			for _, clause := range n.Body.List {
				if comm := clause.(*ast.CommClause).Comm; comm != nil {
					ast.Inspect(comm, func(n ast.Node) bool { inSelect[n] = true; return true })
				}
			}
		case *ast.UnaryExpr:
			found = found || n.Op == token.ARROW && !inSelect[n]
		case *ast.CallExpr:
			found = found || isWait(n)
		}
		return true
	})
	return found
}

func isWait(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	// peerpb.NewStateClient(conn).Apply(…)
	if made, ok := method.X.(*ast.CallExpr); ok {
		if constructor, ok := made.Fun.(*ast.SelectorExpr); ok {
			if from, ok := constructor.X.(*ast.Ident); ok && from.Name == "peerpb" {
				return true
			}
		}
	}
	return slices.Contains(waitCalls, method.Sel.Name)
}
