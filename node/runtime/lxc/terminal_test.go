package lxc_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/node/runtime"
)

// A command that writes to its terminal and ends at once is heard, every time.
func TestNoTerminalOutputIsLost(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 125 {
				want := fmt.Sprintf("%d-%d", worker, i)
				p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"echo", want}, Interactive: true})
				if err != nil {
					t.Error(err)
					return
				}
				out, err := io.ReadAll(p.Terminal())
				if string(out) != want+"\r\n" || err != nil {
					t.Errorf("the terminal of %s has %q, %v", want, out, err)
				}
				if code, err := p.Wait(t.Context()); code != 0 || err != nil {
					t.Errorf("%s ended with %d, %v", want, code, err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// Much output arrives whole, and a descendant that keeps the terminal open does
// not keep its reader waiting.
func TestTerminalEndsWithItsCommand(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	for name, tc := range map[string]struct {
		script string
		want   int
	}{
		"much output":      {"seq 1 20000", len("1\r\n")*9 + len("10\r\n")*90 + len("100\r\n")*900 + len("1000\r\n")*9000 + len("10000\r\n")*10001},
		"a background job": {"trap '' HUP; sleep 1000 & echo done", len("done\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"sh", "-c", tc.script}, Interactive: true})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			out, err := io.ReadAll(p.Terminal())
			if len(out) != tc.want || err != nil {
				t.Errorf("read %d bytes, %v; want %d", len(out), err, tc.want)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("reading took %s", took)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The terminal is one of the container's own, belongs to the user and is hung up
// when the client goes.
func TestTerminalIsTheContainers(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	run := func(spec runtime.ExecSpec) string {
		spec.Interactive = true
		p, err := r.Exec(t.Context(), "c1", spec)
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(p.Terminal())
		if err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		return string(out)
	}
	if out := run(runtime.ExecSpec{Command: []string{"tty"}}); !strings.HasPrefix(out, "/dev/pts/") {
		t.Errorf("tty says %q; want a terminal in /dev/pts", out)
	}
	out := run(runtime.ExecSpec{Command: []string{"sh", "-c", "stat -c '%u %a' $(tty); : < /dev/tty && echo mine"}, UID: 1000, GID: 1000})
	if out != "1000 620\r\nmine\r\n" {
		t.Errorf("the terminal is %q; want that of user 1000 and controlling", out)
	}
	p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{
		Command: []string{"sh", "-c", "trap 'touch /tmp/hung-up; exit 3' HUP; echo ready; while true; do sleep 1000 & wait $!; done"}, Interactive: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen [100]byte
	if _, err := p.Terminal().Read(seen[:]); err != nil {
		t.Fatal(err)
	}
	if err := p.Terminal().Close(); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(t.Context()); code != 3 || err != nil {
		t.Errorf("after its terminal was closed the command ended with %d, %v; want 3 by SIGHUP", code, err)
	}
	if err := p.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	p, err = r.Exec(t.Context(), "c1", runtime.ExecSpec{
		Command: []string{"sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 1000 & wait $!; done"}, Interactive: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Terminal().Read(seen[:]); err != nil {
		t.Fatal(err)
	}
	if err := p.Terminal().Resize(123, 45); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(p.Terminal())
	if string(rest) != "45 123\r\n" || err != nil {
		t.Errorf("after Resize the command says %q, %v; want 45 123", rest, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
