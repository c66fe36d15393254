package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// Who waits for a member's part of a pool or network hears when that member is declared
// offline. The member does its part when it is back.
func TestAMemberDiesWhileItsPartIsWaitedFor(t *testing.T) {
	t.Parallel()
	all := members(t, 3)
	first, second := all[0], all[1]
	// dies asks first for something that second has a part in, which then dies before it
	// has done that part.
	dies := func(method, path string, body any) lab.Answer {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		type answered struct {
			answer lab.Answer
			err    error
		}
		answers := make(chan answered, 1)
		second.Pause()
		began := time.Now()
		go func() {
			answer, err := first.Request(ctx, method, path, body, nil)
			answers <- answered{answer, err}
		}()
		time.Sleep(50 * time.Millisecond) // it is still taken for alive
		second.Kill()
		got := <-answers
		if got.err != nil {
			t.Fatalf("%s %s: %v", method, path, got.err)
		}
		t.Logf("%s %s was answered %d after %v: %s", method, path, got.answer.Code, time.Since(began).Round(time.Millisecond), got.answer.Error)
		return got.answer
	}
	back := func() {
		t.Helper()
		second.Up()
		if _, err := first.Settled(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		list string
		body map[string]any
	}{
		{"/1.0/networks", map[string]any{"name": "waited0", "config": map[string]string{"ipv4.address": "none", "ipv6.address": "none"}}},
		{"/1.0/storage-pools", map[string]any{"name": "waited0", "driver": "dir"}},
	} {
		path := row.list + "/waited0"
		if answer := dies(http.MethodPost, row.list, row.body); answer.Code >= 400 {
			t.Errorf("POST %s: %d %s; want success without the member that died", row.list, answer.Code, answer.Error)
		}
		back()
		eventually(t, func() string {
			var shown struct{ Status string }
			if err := second.Get(t.Context(), path, &shown); err != nil || shown.Status != "Created" {
				return path + " is " + shown.Status
			}
			return ""
		})
		answer := dies(http.MethodDelete, path, nil)
		if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Error, `"m2"`) || !strings.Contains(answer.Error, "offline") {
			t.Errorf("DELETE %s: %d %q; want 503 and who went offline", path, answer.Code, answer.Error)
		}
		back()
		eventually(t, func() string {
			if answer, err := first.Request(t.Context(), http.MethodGet, path, nil, nil); err != nil || answer.Code != http.StatusNotFound {
				return path + " is still there"
			}
			return ""
		})
	}
}
