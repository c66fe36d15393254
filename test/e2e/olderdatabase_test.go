package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/test/lab"
)

// A copy of the database that was taken while an instance was being created, restored or
// deleted, and is put back later, locks nothing for good. An instance that has run since is
// not taken away.
func TestOlderDatabasePutBack(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	ctx := t.Context()
	m.Muster("storage", "create", "slow", "dir")
	// Files enough that a creation takes a while: they are copied one by one.
	m.Muster("launch", "busybox", "seed")
	m.Muster("exec", "seed", "--", "sh", "-c", "mkdir /many; cd /many; for i in $(seq 4000); do echo $i > $i; done")
	m.Muster("stop", "--force", "seed")
	m.Muster("publish", "seed", "--alias", "many")
	m.Muster("delete", "seed")

	database, copied := filepath.Join(m.Dir, "database"), filepath.Join(t.TempDir(), "copy")
	caught := false
	for range 10 {
		answer, err := m.Request(ctx, http.MethodPost, "/1.0/instances", map[string]any{
			"name": "c", "source": map[string]string{"type": "image", "alias": "many"},
			"devices": map[string]any{"root": map[string]string{"type": "disk", "path": "/", "pool": "slow"}},
		}, nil)
		if err != nil || answer.Code != http.StatusAccepted {
			t.Fatalf("create: %v: %d %s", err, answer.Code, answer.Error)
		}
		m.Pause()
		if err := os.RemoveAll(copied); err != nil {
			t.Fatal(err)
		}
		err = os.CopyFS(copied, os.DirFS(database))
		m.Resume()
		if err != nil {
			t.Fatal(err)
		}
		// What the operation is now it was no later than the copy.
		operation := decode[struct{ Status string }](t, mustGet(t, m, answer.Operation))
		if _, err := m.Do(ctx, http.MethodGet, answer.Operation+"/wait", nil); err != nil {
			t.Fatal(err)
		}
		if caught = operation.Status == "Running"; caught {
			break
		}
		m.Muster("delete", "c")
	}
	if !caught {
		t.Skip("no creation took long enough to be caught in the middle")
	}
	m.Muster("start", "c")
	m.Muster("exec", "c", "--", "sh", "-c", "echo mine > /root/f")
	m.Kill()
	if err := os.RemoveAll(database); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(database, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	m.Up()
	deadline := time.Now().Add(time.Minute)
	for {
		out, err := run(m, "", "muster", "exec", "c", "--", "cat", "/root/f")
		if err == nil && out == "mine\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the instance that runs can't be used: %v: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.Muster("snapshot", "c", "s")
	m.Muster("stop", "--force", "c")
	m.Muster("restore", "c", "s")
	m.Muster("start", "c")
	m.Muster("delete", "--force", "c")
}
