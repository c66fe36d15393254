package runtimetest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/node/runtime"
	"muster/state"
)

func testExitCodes(t *testing.T, h Harness) {
	r := h.New(t)
	start(t, r, h.Spec(t, "c1"))
	for name, tc := range map[string]struct {
		command []string
		want    int
	}{
		"success":              {[]string{"true"}, 0},
		"failure":              {[]string{"false"}, 1},
		"its own code":         {[]string{"sh", "-c", "exit 42"}, 42},
		"not found":            {[]string{"no-such-program"}, 127},
		"not found by path":    {[]string{"/no/such/program"}, 127},
		"not executable":       {[]string{"/etc/passwd"}, 126},
		"a directory":          {[]string{"/etc"}, 126},
		"killed by a signal":   {[]string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		"killed by the polite": {[]string{"sh", "-c", "kill -15 $$"}, 128 + 15},
	} {
		t.Run(name, func(t *testing.T) {
			if code, _, errs := Output(t, r, "c1", runtime.ExecSpec{Command: tc.command}); code != tc.want {
				t.Errorf("%q ended with %d (%s); want %d", tc.command, code, strings.TrimSpace(errs), tc.want)
			}
		})
	}
	t.Run("a working directory that does not exist", func(t *testing.T) {
		code, _, errs := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"true"}, Cwd: "/no/such"})
		if code != 126 || !strings.Contains(errs, "/no/such") {
			t.Errorf("ended with %d, %q; want 126 and the directory's name", code, errs)
		}
	})
	t.Run("the environment", func(t *testing.T) {
		_, out, _ := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"env"}, Env: map[string]string{"A": "b c"}})
		for _, want := range []string{"A=b c", "HOME=/root", "USER=root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} {
			if !strings.Contains("\n"+out, "\n"+want+"\n") {
				t.Errorf("env wrote %q; want %q in it", out, want)
			}
		}
	})
	t.Run("the user", func(t *testing.T) {
		_, out, _ := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"id", "-u"}, UID: 1000, GID: 1000, Cwd: "/tmp"})
		if out != "1000\n" {
			t.Errorf("id -u wrote %q; want 1000", out)
		}
	})
	t.Run("the working directory", func(t *testing.T) {
		_, out, _ := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"pwd"}, Cwd: "/etc"})
		if out != "/etc\n" {
			t.Errorf("pwd wrote %q; want /etc", out)
		}
	})
}

func testStreams(t *testing.T, h Harness) {
	r := h.New(t)
	start(t, r, h.Spec(t, "c1"))
	read, write, err := os.Pipe()
	must(t, "make a pipe", err)
	go func() {
		_, _ = io.WriteString(write, "in\n")
		_ = write.Close()
	}()
	code, out, errs := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"sh", "-c", "cat; echo err >&2"}, Stdin: read})
	_ = read.Close()
	if code != 0 || out != "in\n" || errs != "err\n" {
		t.Errorf("ended with %d, %q, %q; want 0, in, err", code, out, errs)
	}
	// Without an input a command reads its end at once.
	if code, out, _ := Output(t, r, "c1", runtime.ExecSpec{Command: []string{"cat"}}); code != 0 || out != "" {
		t.Errorf("cat of nothing ended with %d, %q; want 0 and nothing", code, out)
	}
}

func testSignals(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	start(t, r, h.Spec(t, "c1"))
	p, err := r.Exec(ctx, "c1", runtime.ExecSpec{Command: []string{"sleep", "1000"}})
	must(t, "Exec", err)
	if p.PID() <= 0 || p.Terminal() != nil {
		t.Errorf("PID %d, Terminal %v; want a number and none", p.PID(), p.Terminal())
	}
	must(t, "Signal", p.Signal(syscall.SIGTERM))
	if code, err := p.Wait(ctx); code != 128+15 || err != nil {
		t.Errorf("after SIGTERM: %d, %v; want 143", code, err)
	}
	must(t, "Signal after the end", p.Signal(syscall.SIGTERM))
	must(t, "Close", p.Close())
	must(t, "a second Close", p.Close())

	p, err = r.Exec(ctx, "c1", runtime.ExecSpec{Command: []string{"sleep", "1000"}})
	must(t, "Exec", err)
	must(t, "Close of what runs", p.Close())
	select {
	case <-p.Done():
	default:
		t.Error("after Close the command is not done")
	}
	if code, err := p.Wait(ctx); code != 128+1 || err != nil {
		t.Errorf("after Close: %d, %v; want 129", code, err)
	}
	// A stop of the container ends its commands.
	p, err = r.Exec(ctx, "c1", runtime.ExecSpec{Command: []string{"sleep", "1000"}})
	must(t, "Exec", err)
	must(t, "Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	if code, err := p.Wait(ctx); code != 128+9 || err != nil {
		t.Errorf("after a Stop of the container: %d, %v; want 137", code, err)
	}
	must(t, "Close", p.Close())
}

func testTerminal(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	start(t, r, h.Spec(t, "c1"))
	p, err := r.Exec(ctx, "c1", runtime.ExecSpec{
		Command: []string{"sh", "-c", "stty size; cat"}, Interactive: true, Width: 91, Height: 17,
	})
	must(t, "Exec", err)
	defer func() { must(t, "Close", p.Close()) }()
	var seen bytes.Buffer
	readUntil(t, p.Terminal(), &seen, "17 91\r\n")
	_, err = io.WriteString(p.Terminal(), "hello\n")
	must(t, "write to the terminal", err)
	// Once as the terminal's echo and once as cat's output.
	readUntil(t, p.Terminal(), &seen, "hello\r\nhello\r\n")
	must(t, "Resize", p.Terminal().Resize(100, 40))
	_, err = p.Terminal().Write([]byte{4}) // Control-D, the end of input
	must(t, "write to the terminal", err)
	if code, err := p.Wait(ctx); code != 0 || err != nil {
		t.Errorf("Wait: %d, %v; want 0", code, err)
	}
	rest, err := io.ReadAll(p.Terminal())
	if err != nil || len(rest) != 0 {
		t.Errorf("after the end the terminal has %q, %v; want nothing and no error", rest, err)
	}
}

// readUntil reads until text has been seen.
func readUntil(t testing.TB, from io.ReadCloser, seen *bytes.Buffer, text string) {
	t.Helper()
	found := make(chan error, 1)
	go func() {
		buffer := make([]byte, 256)
		for !strings.Contains(seen.String(), text) {
			n, err := from.Read(buffer)
			seen.Write(buffer[:n])
			if err != nil {
				found <- err
				return
			}
		}
		found <- nil
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Fatalf("read %q and then %v; want %q", seen, err, text)
		}
	case <-time.After(patience):
		_ = from.Close()
		t.Fatalf("waited for %q in vain, read %q, %v", text, seen, <-found)
	}
}

func testExecRefused(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	_, err := r.Exec(ctx, "c1", runtime.ExecSpec{Command: []string{"true"}})
	wantKind(t, "a command in a stranger", err, state.ErrNotFound)
	start(t, r, h.Spec(t, "c1"))
	for name, spec := range map[string]runtime.ExecSpec{
		"no command":                 {},
		"a relative directory":       {Command: []string{"true"}, Cwd: "tmp"},
		"a variable without a name":  {Command: []string{"true"}, Env: map[string]string{"": "x"}},
		"an argument with a NUL":     {Command: []string{"echo", "a\x00b"}},
		"a user that is not mapped":  {Command: []string{"true"}, UID: 1 << 31},
		"a terminal of minus one":    {Command: []string{"true"}, Interactive: true, Width: -1},
		"a variable named with an =": {Command: []string{"true"}, Env: map[string]string{"a=b": "x"}},
	} {
		_, err := r.Exec(ctx, "c1", spec)
		wantKind(t, "Exec with "+name, err, state.ErrInvalid)
	}
}
