package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"muster/state"
)

func TestQueries(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	for name, tc := range map[string]struct {
		statement string
		write     bool
		words     string // of the error, none when it must succeed
	}{
		"reading":                     {"SELECT name FROM profiles ORDER BY name", false, ""},
		"reading with a comment":      {"/* x; */ SELECT ';' -- ;\n;", false, ""},
		"looking at a table":          {"PRAGMA table_info(instances)", false, ""},
		"a write that was not asked":  {"DELETE FROM profiles", false, "DELETE would write"},
		"a write behind WITH":         {"WITH x AS (SELECT 1) DELETE FROM tokens", false, "DELETE would write"},
		"two statements":              {"SELECT 1; DELETE FROM profiles", false, "one statement"},
		"nothing":                     {" ; ", false, "empty"},
		"a transaction":               {"BEGIN", true, "not BEGIN"},
		"turning the checks off":      {"PRAGMA foreign_keys = 0", false, "PRAGMA may only"},
		"RETURNING ends the process":  {"INSERT INTO tokens (id) VALUES (1) returning id", true, "RETURNING"},
		"a read as a write":           {"SELECT 1", true, "not SELECT"},
		"not SQL":                     {"SELECT FROM", false, "syntax error"},
		"a broken reference":          {"UPDATE instances SET location = 'moth'", true, "FOREIGN KEY"},
		"a configuration that is not": {"UPDATE profiles SET config = 'x'", true, "make no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			before := dump(t, s.View())
			_, err := s.Query(t.Context(), tc.statement, nil, tc.write)
			if tc.words == "" && err != nil || tc.words != "" && (!errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.words)) {
				t.Errorf("%q: %v; want ErrInvalid: … %s …", tc.statement, err, tc.words)
			}
			if dump(t, s.View()) != before {
				t.Errorf("%q changed the state", tc.statement)
			}
		})
	}
	table, err := s.Query(t.Context(), "SELECT name, ephemeral, created_at FROM instances WHERE project = ?", []any{"default"}, false)
	if err != nil || fmt.Sprint(table.Columns, table.Rows) != "[name ephemeral created_at] [[c1 true 2026-11-21 09:11:12.123456789 +0000 UTC]]" {
		t.Errorf("query: %v, %v", table, err)
	}
}

// A write by hand reaches every View, and ETags notice.
func TestAQueryThatWrites(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	before := s.View()
	subscription, err := s.Subscribe(before.Revision())
	if err != nil {
		t.Fatal(err)
	}
	table, err := s.Query(t.Context(), "UPDATE instances SET description = ?", []any{"by hand"}, true)
	if err != nil || table.RowsAffected != 1 {
		t.Fatalf("update: %+v, %v", table, err)
	}
	if _, err := s.Query(t.Context(), "DELETE FROM tokens", nil, true); err != nil {
		t.Fatal(err)
	}
	i, err := s.View().Instance("default", "c1")
	if err != nil || i.Description != "by hand" || i.Revision != before.Revision()+1 {
		t.Errorf("instance: %+v, %v", i, err)
	}
	if n := len(s.View().Tokens()); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	must(t, s, SetInstanceState{Project: "default", Name: "c1", IntentID: "i3"})
	i, _ = s.View().Instance("default", "c1")
	must(t, s, UpdateInstance{Project: "default", Name: "c1", ExpectRevision: i.Revision})
	m := mirrorOf(before)
	for m.revision < s.View().Revision() {
		changes, err := subscription.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.follow(t, changes)
	}
	consistent(t, s)
}
