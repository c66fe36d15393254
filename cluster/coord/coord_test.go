package coord_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster/cluster/coord"
	"muster/state"
)

// TestMain doubles as the process that is killed while it proposes.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MUSTER_TEST_COORD_DIR"); dir != "" {
		proposeUntilKilled(dir)
		os.Exit(1)
	}
	if dir := os.Getenv("MUSTER_TEST_COORD_SNAPSHOT"); dir != "" {
		snapshotAndMore(dir)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func config(dir string) coord.Config {
	return coord.Config{Dir: dir, ID: "ant", Bootstrap: true}
}

func open(t testing.TB, dir string) *coord.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := coord.Open(ctx, config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, n) })
	return n
}

func shut(t testing.TB, n *coord.Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func propose(t testing.TB, n *coord.Node, entry coord.Entry) {
	t.Helper()
	if _, err := n.Propose(t.Context(), entry); err != nil {
		t.Fatalf("%T: %v", entry, err)
	}
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func start(id string) coord.StartOperation { return startOf(id, coord.ClassTask, "ant") }

func startOf(id string, class coord.Class, member string) coord.StartOperation {
	return coord.StartOperation{Operation: coord.Operation{
		ID: id, Class: class, Description: "Starting instance", Member: member, Project: "default",
		Resources: map[string][]string{"instances": {"/1.0/instances/c1"}}, CreatedAt: noon, UpdatedAt: noon,
		Metadata: json.RawMessage(`{"a":1}`), Input: json.RawMessage(`{"b":2}`), MayCancel: true,
	}}
}

func finish(id string, status coord.StatusCode, text string) coord.FinishOperation {
	return coord.FinishOperation{ID: id, Status: status, Err: text, At: noon.Add(time.Second)}
}

func TestWhatTheLogAcceptsAndRefuses(t *testing.T) {
	n := open(t, t.TempDir())
	steps := []struct {
		does  string
		entry coord.Entry
		kind  error
		says  string
	}{
		{"a member comes", coord.PutMember{ID: "ant", Name: "Ant", Address: "10.0.0.1:8443", At: noon}, nil, ""},
		{"a member without an ID", coord.PutMember{Name: "x"}, state.ErrInvalid, "has an ID"},
		{"a second member comes", coord.PutMember{ID: "bee", Name: "Bee", At: noon}, nil, ""},
		{"a verdict", coord.SetVerdict{ID: "bee", Verdict: coord.Offline, Epoch: 1, At: noon}, nil, ""},
		{"a verdict about an epoch that is over", coord.SetVerdict{ID: "bee", Verdict: coord.Online, Epoch: 1}, state.ErrConflict, "too late"},
		{"a verdict about the present epoch", coord.SetVerdict{ID: "bee", Verdict: coord.Online, Epoch: 2}, nil, ""},
		{"a verdict nobody knows", coord.SetVerdict{ID: "bee", Verdict: "tired", Epoch: 3}, state.ErrInvalid, "unknown verdict"},
		{"a verdict about a stranger", coord.SetVerdict{ID: "cat", Verdict: coord.Offline}, state.ErrNotFound, "not found"},

		{"a lock is taken", coord.AcquireLock{Name: "image abc", Holder: "ant", Reason: "download"}, nil, ""},
		{"the same lock by its holder", coord.AcquireLock{Name: "image abc", Holder: "ant"}, nil, ""},
		{"the same lock by another", coord.AcquireLock{Name: "image abc", Holder: "bee"}, state.ErrConflict, "locked by member ant (download)"},
		{"a release by another changes nothing", coord.ReleaseLock{Name: "image abc", Holder: "bee"}, nil, ""},
		{"so the lock is still held", coord.AcquireLock{Name: "image abc", Holder: "bee"}, state.ErrConflict, "locked by"},
		{"its holder releases it", coord.ReleaseLock{Name: "image abc", Holder: "ant"}, nil, ""},
		{"now another has it", coord.AcquireLock{Name: "image abc", Holder: "bee"}, nil, ""},
		{"a lock without a name", coord.AcquireLock{Holder: "bee"}, state.ErrInvalid, "a name"},

		{"a lease is taken", coord.AcquireLease{Name: "vip", Holder: "ant", TTL: time.Hour}, nil, ""},
		{"the lease by another", coord.AcquireLease{Name: "vip", Holder: "bee", TTL: time.Hour}, state.ErrConflict, "held by member ant"},
		{"a lease that lasts no time", coord.AcquireLease{Name: "vip", Holder: "ant"}, state.ErrInvalid, "time to live"},
		{"an expiry that a renewal overtook", coord.ExpireLease{Name: "vip", Renewed: 1}, nil, ""},
		{"so the lease is still held", coord.AcquireLease{Name: "vip", Holder: "bee", TTL: time.Hour}, state.ErrConflict, "held by"},
		{"it is given back", coord.ReleaseLease{Name: "vip", Holder: "ant"}, nil, ""},
		{"now another has the lease", coord.AcquireLease{Name: "vip", Holder: "bee", TTL: time.Hour}, nil, ""},

		{"an operation", start("o1"), nil, ""},
		{"the same operation again", start("o1"), nil, ""},
		{"an operation of no class", startOf("o2", "hobby", "ant"), state.ErrInvalid, "unknown class"},
		{"an operation of nobody", startOf("o2", coord.ClassTask, ""), state.ErrInvalid, "a member"},
		{"its metadata", coord.UpdateOperation{ID: "o1", Metadata: json.RawMessage(`{"a":2}`), At: noon}, nil, ""},
		{"metadata of an unknown operation", coord.UpdateOperation{ID: "o9"}, state.ErrNotFound, "not found"},
		{"an end that is none", finish("o1", coord.Running, ""), state.ErrInvalid, "200, 400 or 401"},
		{"its end", finish("o1", coord.Failure, "disk full"), nil, ""},
		{"the same end again", finish("o1", coord.Failure, "disk full"), nil, ""},
		{"another end", finish("o1", coord.Success, ""), state.ErrConflict, "has ended already: disk full"},
		{"metadata after the end", coord.UpdateOperation{ID: "o1"}, state.ErrConflict, "has ended"},
		{"the end of an unknown operation", finish("o9", coord.Success, ""), state.ErrNotFound, "not found"},

		{"a running operation of bee", startOf("o3", coord.ClassTask, "bee"), nil, ""},
		{"a token of bee", startOf("o4", coord.ClassToken, "bee"), nil, ""},
		{"bee goes offline", coord.SetVerdict{ID: "bee", Verdict: coord.Offline, Epoch: 3, At: noon.Add(time.Minute)}, nil, ""},
		{"so its lock is free", coord.AcquireLock{Name: "image abc", Holder: "ant"}, nil, ""},
		{"its operation cannot succeed any more", finish("o3", coord.Success, ""), state.ErrConflict, "went offline"},
		{"its token lives", coord.UpdateOperation{ID: "o4", Metadata: json.RawMessage(`{}`)}, nil, ""},
		{"bee is removed", coord.RemoveMember{ID: "bee", At: noon}, nil, ""},
		{"so its lease is free", coord.AcquireLease{Name: "vip", Holder: "ant", TTL: time.Hour}, nil, ""},
		{"and its token is over", finish("o4", coord.Success, ""), state.ErrConflict, "was removed"},
		{"bee cannot be removed twice", coord.RemoveMember{ID: "bee"}, state.ErrNotFound, "not found"},
	}
	for _, step := range steps {
		before := n.Applied()
		index, err := n.Propose(t.Context(), step.entry)
		switch {
		case step.kind == nil && err != nil:
			t.Errorf("%s: %v; want it accepted", step.does, err)
		case step.kind == nil && index <= before:
			t.Errorf("%s: index %d; want more than %d", step.does, index, before)
		case step.kind != nil && (!errors.Is(err, step.kind) || !strings.Contains(err.Error(), step.says)):
			t.Errorf("%s: %v; want %v saying %q", step.does, err, step.kind, step.says)
		}
	}
	if got, known := n.Operation("o3"); !known || got.Status != coord.Failure || !got.UpdatedAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("o3 = %+v, %v; want Failure at the time of the verdict", got, known)
	}
	if members := n.Members(); len(members) != 1 || members[0].Name != "Ant" {
		t.Errorf("members %+v; want Ant alone", members)
	}
}

func TestARestartKeepsWhatWasSaidAndEndsWhatRan(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir)
	propose(t, n, coord.PutMember{ID: "ant", Name: "Ant", At: noon})
	propose(t, n, start("running"))
	propose(t, n, start("done"))
	propose(t, n, finish("done", coord.Success, ""))
	propose(t, n, startOf("token", coord.ClassToken, "ant"))
	propose(t, n, startOf("elsewhere", coord.ClassTask, "bee"))
	propose(t, n, coord.AcquireLock{Name: "l", Holder: "ant"})
	before := n.Operations()
	term, leading := n.Leading()
	if !leading {
		t.Error("the only member does not lead")
	}
	shut(t, n)
	if _, err := n.Propose(t.Context(), start("late")); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a proposal after Close: %v; want ErrUnavailable", err)
	}

	again := open(t, dir)
	got := map[string]string{}
	for _, op := range again.Operations() {
		got[op.ID] = strings.TrimSpace(op.Status.String() + " " + op.Err)
	}
	want := map[string]string{"running": "Failure the daemon restarted", "done": "Success", "token": "Running", "elsewhere": "Running"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations after a restart (-want +got):\n%s", diff)
	}
	after, _ := again.Operation("token")
	if i := slices.IndexFunc(before, func(op coord.Operation) bool { return op.ID == "token" }); cmp.Diff(before[i], after) != "" {
		t.Errorf("the token operation changed: %s", cmp.Diff(before[i], after))
	}
	if _, held := again.Lock("l"); !held || len(again.Members()) != 1 {
		t.Errorf("lock held: %v, members: %v; want both as before", held, again.Members())
	}
	if newTerm, leading := again.Leading(); !leading || newTerm <= term {
		t.Errorf("term %d, leading %v; want a term after %d", newTerm, leading, term)
	}
}

func TestSubscribersHearEveryChangeInOrder(t *testing.T) {
	n := open(t, t.TempDir())
	var mu sync.Mutex
	var heard []coord.Operation
	cancel := n.SubscribeOperations(func(op coord.Operation) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, op)
	})
	const workers, each = 16, 20
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", w, i)
				for _, entry := range []coord.Entry{start(id), start(id), coord.UpdateOperation{ID: id}, finish(id, coord.Success, "")} {
					if _, err := n.Propose(t.Context(), entry); err != nil {
						t.Errorf("%s: %v", id, err)
					}
				}
			}
		})
	}
	group.Wait()
	cancel()
	propose(t, n, start("unheard"))

	seen := map[string][]coord.StatusCode{}
	last := uint64(0)
	for _, op := range heard {
		if op.Revision <= last {
			t.Fatalf("heard revision %d after %d", op.Revision, last)
		}
		last = op.Revision
		seen[op.ID] = append(seen[op.ID], op.Status)
	}
	if len(seen) != workers*each {
		t.Errorf("heard of %d operations; want %d", len(seen), workers*each)
	}
	want := []coord.StatusCode{coord.Running, coord.Running, coord.Success}
	for id, states := range seen {
		if !slices.Equal(states, want) {
			t.Errorf("heard of %s: %v; want %v", id, states, want)
		}
	}
}

func TestWaitingForAnOperation(t *testing.T) {
	n := open(t, t.TempDir())
	if _, err := n.WaitOperation(t.Context(), "o1"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("an unknown operation: %v; want ErrNotFound", err)
	}
	propose(t, n, start("o1"))
	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if op, err := n.WaitOperation(brief, "o1"); !errors.Is(err, context.DeadlineExceeded) || op.Status != coord.Running {
		t.Errorf("a wait that is too short: %v, %v; want Running and the deadline", op.Status, err)
	}
	ends := make(chan coord.Operation, 10)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			op, err := n.WaitOperation(t.Context(), "o1")
			if err != nil {
				t.Error(err)
			}
			ends <- op
		})
	}
	propose(t, n, finish("o1", coord.Cancelled, "stopped by hand"))
	group.Wait()
	for range 10 {
		if op := <-ends; op.Status != coord.Cancelled || op.Err != "stopped by hand" {
			t.Errorf("waited until %v %q; want Cancelled", op.Status, op.Err)
		}
	}
	if op, err := n.WaitOperation(t.Context(), "o1"); err != nil || op.Status != coord.Cancelled {
		t.Errorf("waiting after the end: %v, %v; want it at once", op.Status, err)
	}
}

func TestALeaseEndsWhenNobodyRenewsIt(t *testing.T) {
	n := open(t, t.TempDir())
	propose(t, n, coord.AcquireLease{Name: "vip", Holder: "ant", TTL: 2 * time.Second})
	first, _ := n.Lease("vip")
	begun := time.Now()
	for range 6 {
		time.Sleep(400 * time.Millisecond) // the pace of renewal, not a wait for something
		propose(t, n, coord.AcquireLease{Name: "vip", Holder: "ant", TTL: 2 * time.Second})
	}
	if lease, held := n.Lease("vip"); !held || lease.Token != first.Token || lease.Renewed == first.Renewed {
		t.Errorf("after %v of renewals: %+v, %v; want the same lease, renewed", time.Since(begun), lease, held)
	}
	renewed := time.Now()
	for _, held := n.Lease("vip"); held; _, held = n.Lease("vip") {
		if time.Since(renewed) > 30*time.Second {
			t.Fatal("the lease did not end")
		}
		time.Sleep(time.Millisecond)
	}
	if lasted := time.Since(renewed); lasted < 1900*time.Millisecond {
		t.Errorf("the lease ended after %v; want 2 s at least", lasted)
	}
}

func TestASecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := coord.Open(t.Context(), config(dir))
	if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opening twice: %v; want a conflict", err)
	}
}

func TestOpenRefusesAnIncompleteConfig(t *testing.T) {
	for _, cfg := range []coord.Config{{ID: "ant"}, {Dir: t.TempDir()}} {
		if _, err := coord.Open(t.Context(), cfg); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%+v: %v; want ErrInvalid", cfg, err)
		}
	}
}

// Damage must be refused with a sentence, never passed over and never a crash.
func TestDamagedLogsAreRefused(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a byte changed in the first entry of ours": func(t *testing.T, dir string) { flip(t, segment(t, dir), "o-0") },
		"a byte changed in the middle":              func(t *testing.T, dir string) { flip(t, segment(t, dir), "o-50") },
		"a byte changed in the last entry":          func(t *testing.T, dir string) { flip(t, segment(t, dir), "o-99") },
		"the log cut in the middle": func(t *testing.T, dir string) {
			if err := os.Truncate(segment(t, dir), 8000); err != nil {
				t.Fatal(err)
			}
		},
		"the log emptied": func(t *testing.T, dir string) {
			if err := os.Truncate(segment(t, dir), 0); err != nil {
				t.Fatal(err)
			}
		},
		"the log removed": func(t *testing.T, dir string) {
			if err := os.Remove(segment(t, dir)); err != nil {
				t.Fatal(err)
			}
		},
		"the metadata overwritten": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "wal-meta.db"), make([]byte, 32<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the metadata halved": func(t *testing.T, dir string) {
			name := filepath.Join(dir, "wal-meta.db")
			info, err := os.Stat(name)
			if err == nil {
				err = os.Truncate(name, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"the metadata emptied": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "wal-meta.db"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"the metadata cut": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "wal-meta.db"), 5000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := open(t, dir)
			for i := range 100 {
				propose(t, n, start(fmt.Sprintf("o-%d", i)))
			}
			shut(t, n)
			damage(t, dir)
			again, err := coord.Open(t.Context(), config(dir))
			if err == nil {
				defer shut(t, again)
				t.Fatalf("the log was opened, with %d operations of 100", len(again.Operations()))
			}
			if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "is damaged") {
				t.Errorf("%v; want a conflict that says what is damaged", err)
			}
		})
	}
}

func segment(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(files) != 1 {
		t.Fatalf("segments %v, %v; want one", files, err)
	}
	return files[0]
}

// flip changes one letter of the description that follows the ID.
func flip(t *testing.T, path, id string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), `"id":"`+id+`"`)
	if at < 0 {
		t.Fatalf("%s is not in the log", id)
	}
	at += strings.Index(string(data[at:]), "Starting")
	data[at] ^= 0x01
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, workers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d at once", workers), func(b *testing.B) {
			n := open(b, b.TempDir())
			b.ResetTimer()
			var group sync.WaitGroup
			for w := range workers {
				group.Go(func() {
					for i := w; i < b.N; i += workers {
						if _, err := n.Propose(b.Context(), start(fmt.Sprint(w, "-", i))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	b.Run("first start", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			b.StartTimer()
			n := open(b, dir)
			b.StopTimer()
			shut(b, n)
			b.StartTimer()
		}
	})
	b.Run("restart with 2000 entries", func(b *testing.B) {
		dir := b.TempDir()
		n := open(b, dir)
		for i := range 1000 {
			id := fmt.Sprint(i)
			propose(b, n, start(id))
			propose(b, n, finish(id, coord.Success, ""))
		}
		shut(b, n)
		for b.Loop() {
			n := open(b, dir)
			b.StopTimer()
			shut(b, n)
			b.StartTimer()
		}
	})
}
