package cluster

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

const antID = "5f0c1f5e-0000-4000-8000-000000000001"

// openStore opens the store of a member named ant; it ends with the test.
func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		Dir: t.TempDir(), Member: state.Member{ID: antID, Name: "ant", Architecture: "x86_64", Address: "192.0.2.1:8443"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Whoever wants the name of an instance that is on its way here is told so at once, however
// long that takes; whoever wants a name that is only being tidied up waits for that.
func TestANameIsClaimed(t *testing.T) {
	c := &Cluster{cfg: Config{MemberID: antID}, store: openStore(t), log: slog.New(slog.DiscardHandler)}
	_, err := c.store.Apply(t.Context(), store.CreateInstance{
		Instance: state.Instance{Project: "default", Name: "c1", Location: "ant"}, Intent: state.Intent{ID: "one"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c1", "c2"} {
		arrived, err := c.locks.acquire(t.Context(), "arrival of "+node.HostName("default", name), "receive")
		if err != nil {
			t.Fatal(err)
		}
		defer arrived()
	}
	waiting, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.claim(waiting, "default", "c1"); !errors.Is(err, state.ErrExists) || waiting.Err() != nil {
		t.Errorf("the name of an instance on its way: %v; want ErrExists at once", err)
	}
	waiting, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.claim(waiting, "default", "c2"); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a name that is being tidied up: %v; want ErrConflict when the time is over", err)
	}
}
