package storage

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"muster/state"
)

// A pool with rsync.bwlimit sends at that rate and all of it; one without sends as it can.
func TestSendingIsLimited(t *testing.T) {
	for limit, want := range map[string]time.Duration{"": 0, "0": 0, "1MiB": 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := &Pool{config: state.Config{"rsync.bwlimit": limit}}
			var got bytes.Buffer
			w, err := p.limited(t.Context(), &got)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			data := make([]byte, 10<<20)
			if n, err := w.Write(data); n != len(data) || err != nil || got.Len() != len(data) {
				t.Errorf("limit %q: wrote %d, %v; the other side has %d", limit, n, err, got.Len())
			}
			if took := time.Since(began).Round(time.Second); took != want {
				t.Errorf("limit %q: 10 MiB took %v; want %v", limit, took, want)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if w, _ := p.limited(ended, &got); limit == "1MiB" {
				if _, err := w.Write(data); err == nil {
					t.Error("a write goes on after the end of its call")
				}
			}
		})
	}
}

// Every key of a pool has a test that looks at its effect.
func TestEveryPoolKeyIsLookedAt(t *testing.T) {
	tests := map[string]string{
		"source":                  "TestPoolSources",
		"size":                    "TestBtrfsPoolGrows",
		"btrfs.mount_options":     "TestBtrfsPoolGrows",
		"volume.size":             "TestNewInstancesHaveThePoolsSize, test/e2e",
		"rsync.bwlimit":           "TestSendingIsLimited",
		"volatile.initial_source": "the server's",
	}
	for key := range poolKeys {
		if tests[key] == "" {
			t.Errorf("nobody looks at the effect of pool key %q", key)
		}
	}
}
