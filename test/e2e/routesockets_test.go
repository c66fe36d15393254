package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"

	"muster/rpc/client"
	"muster/rpc/rest/api"
	"muster/test/lab"
)

// connected is what a member is asked of an instance that another has.
type connected struct {
	*stage
	m *lab.Member
	// sdk speaks with m.
	sdk *client.Client
	// name is the instance's, next the member that has it.
	name string
	next *lab.Member
}

// sockets has what holds a connection open done through every member, to what the next
// one has: commands and consoles, files, events, and waiting for operations.
func (s *stage) sockets(t *testing.T) {
	for i, m := range s.members {
		sdk, err := client.New(client.Config{Socket: m.Socket()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sdk.Close)
		next := (i + 1) % len(s.members)
		c := connected{s, m, sdk, fmt.Sprintf("c%d", next+1), s.members[next]}
		for name, do := range map[string]func(*testing.T){
			"commands": c.commands, "terminals": c.terminals, "signals": c.signals, "console": c.console,
			"files": c.files, "sftp": c.sftp, "events": c.events, "waiting": c.waiting, "secrets": c.secrets,
		} {
			t.Run(fmt.Sprintf("%s through m%d", name, i+1), do)
		}
	}
}

func (c connected) commands(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status, err := c.sdk.Exec(t.Context(), c.name, api.InstanceExecPost{Command: []string{"sh", "-c", "cat; hostname >&2; exit 7"}},
		client.ExecStreams{Stdin: strings.NewReader("sent\n"), Stdout: &stdout, Stderr: &stderr})
	if err != nil || status != 7 || stdout.String() != "sent\n" || stderr.String() != c.name+"\n" {
		t.Errorf("the command ended with %d and %v, and wrote %q and %q; want 7, %q and %q", status, err, stdout.String(), stderr.String(), "sent\n", c.name+"\n")
	}
}

func (c connected) terminals(t *testing.T) {
	var out bytes.Buffer
	status, err := c.sdk.Exec(t.Context(), c.name,
		api.InstanceExecPost{Command: []string{"sh", "-c", "tty >/dev/null && stty size; exit 5"}, Interactive: true, Width: 93, Height: 31},
		client.ExecStreams{Stdout: &out})
	if err != nil || status != 5 || strings.TrimSpace(out.String()) != "31 93" {
		t.Errorf("the command ended with %d and %v, and wrote %q; want 5 and the terminal's size", status, err, out.String())
	}
}

// trigger is a writer that calls do once, when the words have been written to it.
type trigger struct {
	words string
	do    func()
	heard strings.Builder
	once  sync.Once
}

func (w *trigger) Write(p []byte) (int, error) {
	w.heard.Write(p)
	if strings.Contains(w.heard.String(), w.words) {
		w.once.Do(w.do)
	}
	return len(p), nil
}

func (c connected) signals(t *testing.T) {
	control := make(chan api.InstanceExecControl, 1)
	out := &trigger{words: "ready", do: func() { control <- api.InstanceExecControl{Command: "signal", Signal: 15} }}
	status, err := c.sdk.Exec(t.Context(), c.name, api.InstanceExecPost{Command: []string{"sh", "-c", "echo ready; exec sleep 600"}},
		client.ExecStreams{Stdout: out, Control: control})
	if err != nil || status != 128+15 {
		t.Errorf("a command that was told to end did so with %d, %v; want %d", status, err, 128+15)
	}
}

func (c connected) console(t *testing.T) {
	in, typing := io.Pipe()
	defer typing.Close()
	out := &trigger{words: "4242", do: func() { _ = typing.CloseWithError(client.ErrDetached) }}
	go func() {
		// The first line wakes the shell that waits there for somebody.
		_, _ = io.WriteString(typing, "\necho $((42*101))\n")
	}()
	if err := c.sdk.Console(t.Context(), c.name, api.InstanceConsolePost{Width: 80, Height: 25}, client.ExecStreams{Stdin: in, Stdout: out}); err != nil {
		t.Errorf("the console ended with %v after %q", err, out.heard.String())
	}
}

// files pushes and pulls more than any buffer on the way holds.
func (c connected) files(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	if err := c.sdk.WriteFile(t.Context(), c.name, "/root/large", client.FileWrite{Content: bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	file, err := c.sdk.ReadFile(t.Context(), c.name, "/root/large")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Content.Close()
	read, err := io.ReadAll(file.Content)
	if err != nil || sha256.Sum256(read) != sha256.Sum256(content) {
		t.Errorf("%d bytes were read and %v; want the %d that were written", len(read), err, len(content))
	}
	if err := c.sdk.DeleteFile(t.Context(), c.name, "/root/large"); err != nil {
		t.Error(err)
	}
}

func (c connected) sftp(t *testing.T) {
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", c.m.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /1.0/instances/%s/sftp HTTP/1.1\r\nHost: muster\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n", c.name); err != nil {
		t.Fatal(err)
	}
	// Nothing may be read ahead of what SFTP says.
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatalf("%v after %q", err, head)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("the upgrade is answered %q", head)
	}
	files, err := sftp.NewClientPipe(conn, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	file, err := files.Create("/root/by-sftp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(file, "written"); err != nil {
		t.Error(err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if info, err := files.Stat("/root/by-sftp"); err != nil || info.Size() != 7 {
		t.Errorf("the file is %v, %v; want 7 bytes", info, err)
	}
	if err := files.Remove("/root/by-sftp"); err != nil {
		t.Error(err)
	}
	if _, err := files.Stat("/root/by-sftp"); !os.IsNotExist(err) {
		t.Errorf("the file that was removed: %v", err)
	}
}

// events are heard through this member of what is done through the next one.
func (c connected) events(t *testing.T) {
	l := listen(t, c.m, "lifecycle,operation")
	defer l.close()
	name := "e-" + c.name
	if _, err := c.next.Do(t.Context(), http.MethodPost, "/1.0/profiles", object{"name": name}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.next.Do(t.Context(), http.MethodDelete, "/1.0/profiles/"+name, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if problem := oneOf(l.events("profile-created /1.0/profiles/"+name), "the creation"); problem != "" {
			return problem
		}
		return oneOf(l.events("profile-deleted /1.0/profiles/"+name), "the deletion")
	})
	eventually(t, func() string { return oneOf(l.events("Success"), "the operation's end") })
}

// waiting is done through every member for one operation, which ends because somebody
// cancels it through a member that does not run it.
func (c connected) waiting(t *testing.T) {
	started := do202(t, c.next, "/1.0/certificates", object{"name": "w-" + c.name, "type": "client", "token": true})
	ends := make([]told, len(c.members))
	var waiting sync.WaitGroup
	for i, m := range c.members {
		// Each of them knows of the operation before it is cancelled.
		if answer := mustGet(t, m, started.Operation); at(answer.Metadata, "status") != "Running" {
			t.Errorf("m%d shows the operation as %s", i+1, answer.Metadata)
		}
		waiting.Go(func() {
			answer, err := m.Request(context.WithoutCancel(t.Context()), http.MethodGet, started.Operation+"/wait", nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			ends[i] = tell(answer)
		})
	}
	cancelled, err := c.m.Request(t.Context(), http.MethodDelete, started.Operation, nil, nil)
	waiting.Wait()
	if err != nil || cancelled.Code != http.StatusAccepted {
		t.Errorf("cancelling answered %d %q, %v", cancelled.Code, cancelled.Error, err)
	}
	if diff := differ(ends); diff != "" {
		t.Error(diff)
	}
	if end, ok := ends[0].Metadata.(object); !ok || end["status"] != "Cancelled" {
		t.Errorf("who waited was told %v; want Cancelled", ends[0])
	}
}

// secrets lets who has a wrong one into no websocket, through whichever member it comes.
func (c connected) secrets(t *testing.T) {
	started := do202(t, c.m, "/1.0/instances/"+c.name+"/exec", object{"command": []string{"true"}, "wait-for-websocket": true})
	upgrade := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	said := make([]told, len(c.members))
	for i, m := range c.members {
		answer, err := m.Request(t.Context(), http.MethodGet, started.Operation+"/websocket?secret=wrong", nil, upgrade)
		if err != nil {
			t.Fatal(err)
		}
		said[i] = tell(answer)
	}
	if diff := differ(said); diff != "" || said[0].Code != http.StatusForbidden {
		t.Errorf("a wrong secret is answered %v; want 403 from all. %s", said[0], diff)
	}
	// With the right ones, through any member, the command runs and ends.
	var shown struct {
		Metadata struct{ FDs map[string]string }
	}
	if err := json.Unmarshal(started.Metadata, &shown); err != nil || len(shown.Metadata.FDs) != 4 {
		t.Fatalf("the operation shows the secrets %v, %v; want four", shown.Metadata.FDs, err)
	}
	i := 0
	for _, secret := range shown.Metadata.FDs {
		conn := dialSocket(t, c.members[i%len(c.members)], started.Operation+"/websocket?secret="+secret)
		defer conn.Close()
		i++
	}
	ended := mustGet(t, c.m, started.Operation+"/wait")
	if status := at(ended.Metadata, "status"); status != "Success" {
		t.Errorf("the command ended as %s: %s", status, ended.Metadata)
	}
}
