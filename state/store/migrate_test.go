package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/state"
)

// nextSchema is what a release knows that is one step ahead.
func nextSchema(t *testing.T, sql string) *schema {
	t.Helper()
	release, err := releaseSchema()
	if err != nil {
		t.Fatal(err)
	}
	return release.withFurther(migration{name: "next", sql: sql})
}

// restart opens a member's store again, as another release does.
func (l *lab) restart(t *testing.T, id string, release *schema) *Store {
	t.Helper()
	before := l.stores[id]
	l.isolate(id)
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	l.heal()
	cfg := before.cfg
	cfg.schema, cfg.Patient = release, true
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l.add(t, id, s)
}

// consent has whoever leads hear who can work with a schema.
func (l *lab) consent(t *testing.T, schema int64, members ...string) {
	t.Helper()
	for id, s := range l.stores {
		if err := s.MoveSchema(t.Context(), Consent{Schema: schema, Members: members}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// broken waits until a store says why its member must not go on, or nil. It may lead, and
// then finds out when it is asked for something.
func (l *lab) broken(t *testing.T, s *Store) error {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		select {
		case err := <-s.Broken():
			return err
		case <-time.After(50 * time.Millisecond):
		}
		asking, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_ = s.Barrier(asking) // an error is what is waited for
		cancel()
	}
	return nil
}

// A cluster is upgraded one member after the other, and serves meanwhile. The schema moves
// when every member knows the next one, and every View then shows what it made of the state.
func TestTheSchemaMovesWithTheLastMember(t *testing.T) {
	l := newLab(t, 3)
	// No change tells what the step does to the rows.
	next := nextSchema(t, `ALTER TABLE projects ADD COLUMN next TEXT NOT NULL DEFAULT ''; UPDATE projects SET description = 'moved'`)
	before, after := next.known().Newest-1, next.known().Newest
	stays := func(when string) {
		t.Helper()
		must(t, l.stores["m0"], setting(1))
		for id, s := range l.stores {
			if err := s.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := s.View().Schema(); got != before {
				t.Errorf("%s: %s shows schema %d; want %d", when, id, got, before)
			}
		}
	}
	for _, id := range []string{"m1", "m2"} {
		l.restart(t, id, next)
		stays("after the upgrade of " + id)
	}
	l.consent(t, after, "m1", "m2")
	stays("without m0")
	l.restart(t, "m0", next)
	stays("before anybody consents")
	l.consent(t, after, "m0", "m1", "m2")
	for id, s := range l.stores {
		deadline := time.Now().Add(10 * time.Second)
		for {
			project, err := s.View().Project(state.DefaultProject)
			if err == nil && project.Description == "moved" && s.View().Schema() == after {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s shows schema %d and %+v", id, s.View().Schema(), project)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	must(t, l.stores["m1"], setting(2))
	l.same(t, "m0", "m1", "m2")

	// Nobody of the release before is taken in, and its token is as good as it was.
	token := state.Token{ID: "t1", Purpose: "member", Name: "old", SecretHash: "x", ExpiresAt: time.Now().Add(time.Hour)}
	must(t, l.stores["m0"], AddToken{Token: token})
	join := ConsumeToken{ID: "t1", SecretHash: "x", Now: time.Now(), Member: &state.Member{ID: "old", Name: "old"}, Schema: SchemaRange{before, before}}
	refused(t, l.stores["m0"], join, state.ErrConflict, "run a newer release")
	join.Schema = SchemaRange{after + 1, after + 1}
	refused(t, l.stores["m0"], join, state.ErrConflict, "run the release in between")
	join.Schema = SchemaRange{before, after + 1}
	must(t, l.stores["m0"], join)

	// A member that goes back to the release before says what is wrong and ends.
	release, err := releaseSchema()
	if err != nil {
		t.Fatal(err)
	}
	leader, others := l.leader(t, "m0")
	for _, id := range []string{others[0], leader} {
		err := l.broken(t, l.restart(t, id, release))
		if !errors.Is(err, state.ErrConflict) || !strings.Contains(fmt.Sprint(err), "run a newer release") {
			t.Errorf("%s of the release before: %v; want it to say what is wrong, and to end", id, err)
		}
		l.restart(t, id, next)
	}
}

// A step that fails is undone, and the cluster goes on with the schema that it has.
func TestAStepThatFails(t *testing.T) {
	l := newLab(t, 3)
	next := nextSchema(t, `UPDATE projects SET description = 'half'; ALTER TABLE nothing ADD COLUMN next TEXT`)
	for _, id := range []string{"m0", "m1", "m2"} {
		l.restart(t, id, next)
	}
	must(t, l.stores["m0"], setting(1))
	leader, _ := l.leader(t, "m0")
	consent := Consent{Schema: next.known().Newest, Members: []string{"m0", "m1", "m2"}}
	if err := l.stores[leader].MoveSchema(t.Context(), consent); err == nil || !strings.Contains(err.Error(), "schema step next") {
		t.Errorf("a step that fails: %v; want an error that names it", err)
	}
	for _, s := range l.stores {
		must(t, s, setting(2))
		if project, err := s.View().Project(state.DefaultProject); err != nil || project.Description == "half" || s.View().Schema() != next.known().Oldest {
			t.Errorf("after a step that failed: schema %d, %+v, %v", s.View().Schema(), project, err)
		}
	}
}
