package clients

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/test/lab"
)

//go:embed testdata/pylxd_suite.py
var pylxdSuite string

// TestPylxd drives every class of pylxd that has a place here (its own document
// names them): client, certificates, containers, files, snapshots, images,
// networks, operations, profiles, events.
func TestPylxd(t *testing.T) {
	lab.NeedsRoot(t)
	if _, err := os.Stat("/usr/lib/python3/dist-packages/pylxd"); err != nil {
		t.Skip("needs pylxd: \"apt-get install python3-pylxd\"")
	}
	m := lab.Start(t, lab.Options{})
	script := filepath.Join(t.TempDir(), "suite.py")
	if err := os.WriteFile(script, []byte(pylxdSuite), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := m.Command("/usr/bin/python3", script, m.Socket(), lab.BusyboxFile(t)).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the suite: %v", err)
	}
	if !strings.Contains(string(out), "all passed") {
		t.Error("the suite did not say that all passed")
	}
}
