package lxc_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"muster/node/runtime"
)

// The console can be typed into, and its log is bounded.
func TestConsole(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	s.Init = []string{"/bin/sh", "-c", "echo ready; while read line; do if test \"$line\" = flood; then seq 1 200000; fi; echo got $line; done"}
	start(t, r, s)
	console, err := r.Console(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(console, "hello\n"); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	buffer := make([]byte, 4096)
	for !strings.Contains(seen.String(), "got hello") {
		n, err := console.Read(buffer)
		if err != nil {
			t.Fatalf("read %q, then %v", seen.String(), err)
		}
		seen.Write(buffer[:n])
	}
	if _, err := io.WriteString(console, "flood\n"); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(seen.String(), "got flood") {
		n, err := console.Read(buffer)
		if err != nil {
			t.Fatalf("after %d bytes: %v", seen.Len(), err)
		}
		seen.Write(buffer[:n])
	}
	log, err := r.ConsoleLog(t.Context(), "c1")
	if err != nil || len(log) < 64<<10 || len(log) > 300<<10 || !bytes.Contains(log, []byte("200000\r\n")) {
		t.Errorf("the log has %d bytes, %v; want the newest, bounded", len(log), err)
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, console); err != nil {
		t.Errorf("the console of a stopped container: %v; want its end", err)
	}
	if err := console.Close(); err != nil {
		t.Error(err)
	}
}
