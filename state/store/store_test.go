package store

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/state"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var self = state.Member{ID: "5f0c1f5e-0000-4000-8000-000000000001", Name: "ant", Architecture: "x86_64"}

// open opens a store in dir and closes it with the test.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Member: self})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// fresh opens a store in a new directory.
func freshStore(t testing.TB) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "database"))
}

// must applies a command that has to succeed.
func must(t testing.TB, s *Store, command Command) Result {
	t.Helper()
	result, err := s.Apply(context.WithoutCancel(t.Context()), command)
	if err != nil {
		t.Fatalf("%s: %v", command.name(), err)
	}
	return result
}

func TestANewStoreHasWhatAClusterHas(t *testing.T) {
	start := time.Now()
	s := freshStore(t)
	t.Log(time.Since(start))
	v := s.View()
	if got := v.Revision(); got != 1 {
		t.Errorf("revision %d; want 1", got)
	}
	if p, err := v.Project("default"); err != nil || p.Name != "default" {
		t.Errorf("default project: %v, %v", p, err)
	}
	if p, err := v.Profile("default", "default"); err != nil || len(p.Devices) != 0 {
		t.Errorf("default profile: %v, %v", p, err)
	}
	if m, err := v.MemberByID(self.ID); err != nil || m.Name != self.Name || m.Architecture != self.Architecture {
		t.Errorf("this member: %v, %v", m, err)
	}
}
