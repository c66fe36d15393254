package password_test

import (
	"strings"
	"testing"
	"time"

	"muster/rpc/rest/password"
)

func TestMatches(t *testing.T) {
	stored, err := password.Hash("open sesame")
	if err != nil {
		t.Fatal(err)
	}
	again, err := password.Hash("open sesame")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stored, "sesame") || stored == again {
		t.Errorf("hashes %q and %q; want them salted and without the password", stored, again)
	}
	for name, row := range map[string]struct {
		stored, given string
		want          bool
	}{
		"the password":          {stored, "open sesame", true},
		"another":               {stored, "open barley", false},
		"nothing":               {stored, "", false},
		"the hash itself":       {stored, stored, false},
		"against no password":   {"", "", false},
		"against plain text":    {"open sesame", "open sesame", false},
		"against a damaged key": {stored[:len(stored)-4], "open sesame", false},
		"against absurd costs":  {strings.Replace(stored, "scrypt$15$8", "scrypt$60$8", 1), "open sesame", false},
	} {
		if got := password.Matches(row.stored, row.given); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

func TestDamper(t *testing.T) {
	var d password.Damper
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for guess, want := range []time.Duration{0, 0, 1, 2, 4, 8} {
		d.Wrong("10.0.0.1", now)
		if got := d.Wait("10.0.0.1", now); got != want*time.Second {
			t.Errorf("after wrong guess %d: wait %v, want %v", guess+1, got, want*time.Second)
		}
	}
	if got := d.Wait("10.0.0.2", now); got != 0 {
		t.Errorf("somebody else waits %v", got)
	}
	if got := d.Wait("10.0.0.1", now.Add(8*time.Second)); got != 0 {
		t.Errorf("after the wait: %v, want 0", got)
	}
	for range 100 {
		d.Wrong("10.0.0.1", now)
	}
	if got := d.Wait("10.0.0.1", now); got != 5*time.Minute {
		t.Errorf("after very many guesses: wait %v, want 5m", got)
	}
	d.Right("10.0.0.1")
	if got := d.Wait("10.0.0.1", now); got != 0 {
		t.Errorf("after the right password: wait %v", got)
	}
}

func TestDamperRemembersOnlySoMany(t *testing.T) {
	var d password.Damper
	now := time.Now()
	for i := range 5000 {
		source := strings.Repeat("x", i)
		for range 4 {
			d.Wrong(source, now.Add(time.Duration(i)*time.Microsecond))
		}
	}
	if d.Wait("", now) != 0 {
		t.Error("the oldest of 5000 sources is still known")
	}
	if d.Wait(strings.Repeat("x", 4999), now) == 0 {
		t.Error("the newest source was forgotten")
	}
}
