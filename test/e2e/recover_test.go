package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/test/lab"
)

// inSpace runs one of the daemon's subcommands where the member's network is.
func inSpace(t *testing.T, m *lab.Member, stdin string, args ...string) (string, error) {
	t.Helper()
	var out []byte
	err := m.Inside(func() (err error) {
		cmd := m.Command("musterd", args...)
		// One that was to be refused and serves instead is not waited for.
		late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
		defer late.Stop()
		cmd.Stdin = strings.NewReader(stdin)
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

// mustSay runs a subcommand and wants the words in what it prints.
func mustSay(t *testing.T, m *lab.Member, fails bool, stdin string, args []string, words ...string) {
	t.Helper()
	out, err := inSpace(t, m, stdin, args...)
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || (err != nil) != fails {
		t.Errorf("musterd %s: %v; want a failure: %v\n%s", strings.Join(args, " "), err, fails, out)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("musterd %s printed %q; want %q in it", strings.Join(args, " "), out, word)
		}
	}
}

// Two of three members are gone for good: the third says so, answers reads, and goes on
// alone when it is told to.
func TestRecoverFromQuorumLoss(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network})
	first, second, survivor := members[0], members[1], members[2]
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	survivor.Muster("init", "--empty", "c2", "--target", "m2", "--no-profiles", "--storage", "default")
	if _, err := first.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "before"}); err != nil {
		t.Fatal(err)
	}
	if err := survivor.Get(t.Context(), "/1.0/profiles/before", &struct{}{}); err != nil {
		t.Fatal(err)
	}
	recovering := []string{"cluster", "recover-from-quorum-loss"}
	listing := []string{"cluster", "list-database"}

	first.Kill()
	second.Kill()
	t.Run("without a majority reads say how old they are and writes what to do", func(t *testing.T) {
		for path, body := range map[string]any{
			"/1.0/profiles":            map[string]any{"name": "never"},
			"/1.0/instances?target=m3": map[string]any{"name": "never", "source": map[string]string{"type": "none"}},
			"/1.0/cluster/members":     map[string]any{"server_name": "m9"},
			"/1.0/storage-pools":       map[string]any{"name": "never", "driver": "dir"},
		} {
			began := time.Now()
			answer, err := survivor.Request(t.Context(), http.MethodPost, path, body, nil)
			took := time.Since(began)
			if err != nil || answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Error, "recover-from-quorum-loss") || took > 5500*time.Millisecond {
				t.Errorf("POST %s answered %d %q, %v after %v; want 503 within 5 s, with what to do", path, answer.Code, answer.Error, err, took)
			}
		}
		answer, err := survivor.Request(t.Context(), http.MethodGet, "/1.0/profiles", nil, nil)
		seconds, _ := strconv.Atoi(answer.Header.Get("Muster-Stale"))
		if err != nil || answer.Code != http.StatusOK || seconds < 2 {
			t.Errorf("a read answered %d, %v with Muster-Stale %q; want 200 and some seconds", answer.Code, err, answer.Header.Get("Muster-Stale"))
		}
		mustSay(t, survivor, false, "", listing, "m1", "m2", "m3 (this member)", "voter")
		// Who was alive when that could last be told is not called offline.
		eventually(t, func() string {
			answer, err := survivor.Request(t.Context(), http.MethodPost, "/1.0/instances?target=m2", map[string]any{"name": "never", "source": map[string]string{"type": "none"}}, nil)
			if err != nil || answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Error, "recover-from-quorum-loss") {
				return fmt.Sprintf("an instance for a lost member: %d %q, %v; want 503 and what to do", answer.Code, answer.Error, err)
			}
			return ""
		})
	})

	t.Run("it is refused while there is hope", func(t *testing.T) {
		mustSay(t, survivor, true, "", recovering, "must be stopped first")
		if err := survivor.Stop(); err != nil {
			t.Fatal(err)
		}
		first.Launched()
		eventually(t, func() string {
			if out, err := inSpace(t, survivor, "no\n", recovering...); err == nil || !strings.Contains(out, `member "m1" answers at`) {
				return out
			}
			return ""
		})
		eventually(t, func() string {
			answer, err := first.Request(t.Context(), http.MethodGet, "/1.0", nil, nil)
			if err != nil || answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Error, "waits for the others") {
				return fmt.Sprintf("answered %d %q, %v", answer.Code, answer.Error, err)
			}
			return ""
		})
		mustSay(t, first, false, "", listing, "m1 (this member)", "m2", "m3", "| voter    | voter")
		first.Kill()
		mustSay(t, survivor, true, "no\n", recovering, "Lost for good", "member m1 at", "member m2 at", "nothing was changed")
		out, err := inSpace(t, survivor, "", listing...)
		if err != nil || strings.Count(out, "| voter    | voter") != 3 {
			t.Errorf("list-database from the disk: %v\n%s\nwant three voters of both logs", err, out)
		}
	})

	t.Run("the survivor goes on alone", func(t *testing.T) {
		mustSay(t, survivor, false, "", append(recovering, "--yes"), "Lost for good", "Start the daemon")
		mustSay(t, survivor, false, "", listing, "m3 (this member)")
		mustSay(t, survivor, true, "", recovering, "nothing to recover from")
		survivor.Up()
		status(t, survivor, "m2 Offline", "m3 Online")
		if err := survivor.Get(t.Context(), "/1.0/profiles/before", &struct{}{}); err != nil {
			t.Error(err)
		}
		if _, err := survivor.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "after"}); err != nil {
			t.Error(err)
		}
		answer, err := survivor.Request(t.Context(), http.MethodGet, "/1.0/profiles", nil, nil)
		if stale := answer.Header.Get("Muster-Stale"); err != nil || stale != "" {
			t.Errorf("a read is marked stale: %q, %v", stale, err)
		}
		if answer, err := survivor.Request(t.Context(), http.MethodPut, "/1.0/cluster/members/m2", map[string]any{"config": map[string]string{}}, nil); err != nil || answer.Code != http.StatusConflict {
			t.Errorf("a member that was given up is changed: %d %s, %v; want 409", answer.Code, answer.Error, err)
		}
		if _, err := survivor.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m2", nil); err == nil {
			t.Error("a member that was given up is removed without force")
		}
		if _, err := survivor.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m2?force=1", nil); err != nil {
			t.Error(err)
		}
		status(t, survivor, "m3 Online")
		survivor.Restart()
		status(t, survivor, "m3 Online")
		if _, err := survivor.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "again"}); err != nil {
			t.Error(err)
		}
	})

	t.Run("who comes back is told, and can join anew", func(t *testing.T) {
		first.Launched()
		second.Launched()
		for _, m := range members[:2] {
			eventually(t, func() string {
				answer, err := m.Request(t.Context(), http.MethodGet, "/1.0/profiles", nil, nil)
				if err != nil || answer.Code != http.StatusForbidden || !strings.Contains(answer.Error, "was removed from its cluster") {
					return fmt.Sprintf("answered %d %q, %v", answer.Code, answer.Error, err)
				}
				return ""
			})
			if !strings.Contains(m.Log(), "was removed from its cluster") {
				t.Errorf("its log does not say that it was removed:\n%s", m.Log())
			}
		}
		if err := first.Stop(); err != nil {
			t.Errorf("a removed member ends with %v", err)
		}
		mustSay(t, first, true, "", []string{"cluster", "forget"}, "--yes")
		mustSay(t, first, false, "", []string{"cluster", "forget", "--yes"})
		first.Up()
		first.Join(survivor, "m4")
		status(t, first, "m3 Online", "m4 Online")
	})
	second.Abandon()
	survivor.Purges(survivor)
	first.Purges()
}
