package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/rpc/client"
	"muster/rpc/rest/api"
	"muster/test/lab"
)

// fds are the secrets of the websockets of an operation that was just begun.
func fds(t *testing.T, started lab.Answer) map[string]string {
	t.Helper()
	var shown struct {
		Metadata struct{ FDs map[string]string }
	}
	if err := json.Unmarshal(started.Metadata, &shown); err != nil || len(shown.Metadata.FDs) == 0 {
		t.Fatalf("the operation %s has no websockets: %v", started.Metadata, err)
	}
	return shown.Metadata.FDs
}

// runs reports whether a process with that mark on its command line runs on this machine,
// in whatever container. The shim does not count.
func runs(mark string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, process := range processes {
		data, err := os.ReadFile(process)
		if err == nil && strings.Contains(string(data), mark) && !strings.Contains(string(data), "muster-shim") {
			return true
		}
	}
	return false
}

// mark is an argument that no other process on the machine has: a number of seconds that
// sleep takes.
func mark(n int) string { return fmt.Sprintf("3%05d%d", os.Getpid()%100000, n) }

// A command ends when it ends: not when it has closed its outputs, and not because a client
// looks away first.
func TestExecEndsWithTheCommand(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	if err := m.Launch(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	sdk, err := client.New(client.Config{Socket: m.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	defer sdk.Close()
	t.Run("the outputs are closed early", func(t *testing.T) {
		status, err := sdk.Exec(t.Context(), "c1", api.InstanceExecPost{Command: []string{"sh", "-c", "exec >&- 2>&-; sleep 1; echo x >/tmp/f; exit 5"}},
			client.ExecStreams{Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}})
		if status != 5 || err != nil {
			t.Errorf("ended with %d, %v; want 5", status, err)
		}
		if got := m.Muster("exec", "c1", "--", "cat", "/tmp/f"); got != "x\n" {
			t.Errorf("the file has %q; want what the command wrote after it closed its outputs", got)
		}
	})
	t.Run("fifty times", func(t *testing.T) {
		for i := range 50 {
			var out bytes.Buffer
			status, err := sdk.Exec(t.Context(), "c1", api.InstanceExecPost{Command: []string{"cat", "/etc/hostname"}}, client.ExecStreams{Stdout: &out})
			if status != 0 || err != nil || out.Len() == 0 {
				t.Fatalf("run %d ended with %d, %v and wrote %q; want 0", i, status, err, out.String())
			}
		}
	})
	t.Run("a terminal whose input has ended", func(t *testing.T) {
		// The end as stock clients send it: an empty text message.
		for name, tc := range map[string]struct {
			command []string
			input   string
			want    int
			out     string
		}{
			"who wants more is hung up":      {[]string{"tee", "/tmp/tee"}, "hello\n", 129, "hello\r\nhello\r\n"},
			"half a line arrives":            {[]string{"tee", "/tmp/tee"}, "half", 129, "halfhalf"},
			"who reads keys is hung up":      {[]string{"sh", "-c", "stty raw -echo; cat"}, "", 129, ""},
			"who has more to say goes on":    {[]string{"sh", "-c", "sleep 1; echo said"}, "", 0, "said\r\n"},
			"who has read enough goes on":    {[]string{"sh", "-c", "read x; sleep 1; echo $x"}, "hello\n", 0, "hello\r\nhello\r\n"},
			"who reads from elsewhere does":  {[]string{"sh", "-c", "(sleep 1; echo piped) | cat"}, "", 0, "piped\r\n"},
			"who reads for the second time":  {[]string{"sh", "-c", "read x; read y; echo $x$y"}, "a\n", 129, "a\r\n"},
			"who reads /dev/tty is hung up":  {[]string{"sh", "-c", "exec cat </dev/tty"}, "", 129, ""},
			"who was there before it is not": {[]string{"true"}, "", 0, ""},
		} {
			t.Run(name, func(t *testing.T) {
				started := do202(t, m, "/1.0/instances/c1/exec", object{"command": tc.command, "wait-for-websocket": true, "interactive": true})
				conn := dialSocket(t, m, started.Operation+"/websocket?secret="+fds(t, started)["0"])
				defer conn.Close()
				if err := conn.WriteMessage(2, []byte(tc.input)); err != nil {
					t.Fatal(err)
				}
				if err := conn.WriteMessage(1, nil); err != nil {
					t.Fatal(err)
				}
				var out strings.Builder
				_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
				for {
					kind, data, err := conn.ReadMessage()
					if err != nil || kind == 1 {
						break
					}
					out.Write(data)
				}
				ended := mustGet(t, m, started.Operation+"/wait?timeout=60")
				var op struct{ Metadata struct{ Return *int } }
				if err := json.Unmarshal(ended.Metadata, &op); err != nil || op.Metadata.Return == nil {
					t.Fatalf("%s, %v; want an exit status", ended.Metadata, err)
				}
				if status := *op.Metadata.Return; status != tc.want || out.String() != tc.out {
					t.Errorf("ended with %d and wrote %q; want %d and %q", status, out.String(), tc.want, tc.out)
				}
			})
		}
	})
	t.Run("the client is gone", func(t *testing.T) {
		for name, control := range map[string]bool{"with a control socket": true, "without one": false} {
			t.Run(name, func(t *testing.T) {
				started := do202(t, m, "/1.0/instances/c1/exec", object{"command": []string{"sleep", mark(1)}, "wait-for-websocket": true})
				for socket, secret := range fds(t, started) {
					if socket != "control" || control {
						defer dialSocket(t, m, started.Operation+"/websocket?secret="+secret).Close()
					}
				}
				eventually(t, func() string { return unless(runs(mark(1)), "the command has not begun") })
			})
			eventually(t, func() string { return unless(!runs(mark(1)), "the command goes on "+name) })
		}
	})
	for name, end := range map[string]func(){
		"the daemon is killed": m.Kill,
		"the daemon ends":      func() { _ = m.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			alone := do202(t, m, "/1.0/instances/c1/exec", object{"command": []string{"sh", "-c", "trap '' HUP; sleep " + mark(2) + "; true"}})
			eventually(t, func() string { return unless(runs("sleep\x00"+mark(2)), "the command has not begun") })
			end()
			eventually(t, func() string { return unless(!runs(mark(2)), "the command goes on, and nobody can follow it") })
			m.Up()
			if op, err := m.Request(t.Context(), http.MethodGet, alone.Operation, nil, nil); err != nil || op.Code == http.StatusOK && at(op.Metadata, "status") != "Failure" {
				t.Errorf("its operation is %s, %v; want Failure", op.Metadata, err)
			}
		})
	}
}

// unless returns words when ok does not hold.
func unless(ok bool, words string) string {
	if ok {
		return ""
	}
	return words
}

// A command of a member that was cut off, and whose operation has failed, is ended as soon
// as the member hears of it.
func TestExecOfAMemberThatWasCutOff(t *testing.T) {
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network})
	first, third := members[0], members[2]
	first.Busybox()
	if _, err := first.Do(t.Context(), http.MethodPost, "/1.0/instances?target=m3", object{"name": "c1", "source": object{"type": "image", "alias": "busybox"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Do(t.Context(), http.MethodPut, "/1.0/instances/c1/state", object{"action": "start"}); err != nil {
		t.Fatal(err)
	}
	alone := do202(t, first, "/1.0/instances/c1/exec", object{"command": []string{"sleep", mark(3)}})
	eventually(t, func() string { return unless(runs(mark(3)), "the command has not begun") })
	network.Unplug(third)
	ended := mustGet(t, first, alone.Operation+"/wait?timeout=60")
	if status := at(ended.Metadata, "status"); status != "Failure" {
		t.Fatalf("the operation of a member that is cut off is %v; want Failure", status)
	}
	network.Heal()
	eventually(t, func() string { return unless(!runs(mark(3)), "the command goes on although its operation has failed") })
}
