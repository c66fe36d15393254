package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// The server that a join token admitted is admitted again by it until its join ends, and
// no other server is. A join that is taken back leaves nothing.
func TestAJoinEndsOrIsTakenBack(t *testing.T) {
	s := freshStore(t)
	must(t, s, CreatePool{Pool: state.Pool{Name: "fast", Driver: "dir", Locals: state.Locals{"ant": {}}}})
	must(t, s, SetPoolLocal{Name: "fast", Member: "ant", Local: state.Local{Status: state.LocalCreated}})
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	must(t, s, AddToken{Token: state.Token{ID: "t1", Purpose: "member", Name: "bee", SecretHash: "hash", CreatedAt: at, ExpiresAt: at}})

	join := func(id, mark, source string) ConsumeToken {
		return ConsumeToken{
			ID: "t1", SecretHash: "hash", Now: at, Schema: s.KnownSchema(), Settings: map[string]string{"core.https_address": "192.0.2.2:8443"},
			Member: &state.Member{ID: id, Name: "bee", Address: "192.0.2.2:8443", Config: state.Config{JoiningKey: mark}, CreatedAt: at},
			Pools:  map[string]state.Config{"fast": {"source": source}},
		}
	}
	must(t, s, join("bee-id", "hash", "/one"))
	refused(t, s, join("wasp-id", "hash", "/one"), state.ErrForbidden, "used already")
	refused(t, s, join("bee-id", "another", "/one"), state.ErrForbidden, "used already")
	must(t, s, join("bee-id", "hash", "/two"))
	pool, err := s.View().Pool("fast")
	if err != nil {
		t.Fatal(err)
	}
	want := state.Local{Status: state.LocalCreating, Config: state.Config{"source": "/two"}}
	if diff := cmp.Diff(want, pool.Locals["bee"]); diff != "" {
		t.Errorf("the part of a member that was admitted again (-want +got):\n%s", diff)
	}
	consistent(t, s)

	must(t, s, TakeBackJoin{Name: "bee", ID: "wasp-id"})
	if m, err := s.View().Member("bee"); err != nil || !Joining(m) {
		t.Errorf("after another server's join was taken back: %+v, %v; want that bee joins", m, err)
	}
	must(t, s, TakeBackJoin{Name: "bee", ID: "bee-id"})
	if pool, err = s.View().Pool("fast"); err != nil || len(pool.Locals) != 1 {
		t.Errorf("a join that was taken back leaves the pool %+v, %v", pool, err)
	}
	if m, err := s.View().Member("bee"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a join that was taken back leaves %+v, %v", m, err)
	}
	if left := s.View().Settings("bee"); len(left) > 0 {
		t.Errorf("a join that was taken back leaves the settings %+v", left)
	}

	byPassword := join("bee-id", JoinedByPassword, "/three")
	byPassword.ID, byPassword.SecretHash = "", ""
	must(t, s, byPassword)
	must(t, s, EndJoin{Name: "bee"})
	must(t, s, EndJoin{Name: "bee"})
	must(t, s, TakeBackJoin{Name: "bee", ID: "bee-id"})
	if m, err := s.View().Member("bee"); err != nil || Joining(m) {
		t.Errorf("after its join ended: %+v, %v; want a member that does not join", m, err)
	}
	refused(t, s, byPassword, state.ErrExists, `"bee"`)
	unknown := join("fly-id", "hash", "/one")
	unknown.ID, unknown.Member.Name = "", "fly"
	if _, err := s.Apply(t.Context(), unknown); !errors.Is(err, state.ErrForbidden) {
		t.Errorf("a member without a token: %v; want a refusal", err)
	}
	consistent(t, s)
}
