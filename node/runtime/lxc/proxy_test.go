package lxc_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
)

// Proxies pass connections both ways, over TCP and unix sockets, and end with the
// container.
func TestProxies(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	start(t, r, s)
	server := echoServer(t)
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	unixSocket := filepath.Join(dir, "u")
	// Out of the container on two ways, and in again: each connection crosses the
	// border twice.
	for _, p := range []runtime.Proxy{
		{Name: "out tcp", InContainer: true, Listen: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:7000"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "out/unix", InContainer: true, Mode: 0o666, UID: 1000, GID: 1000, Listen: []runtime.Endpoint{{Network: "unix", Address: "/tmp/socket"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "in tcp", Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:7000"}}},
		{Name: "in unix", Listen: []runtime.Endpoint{{Network: "unix", Address: unixSocket}}, Connect: []runtime.Endpoint{{Network: "unix", Address: "/tmp/socket"}}},
	} {
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatalf("AddProxy(%s): %v", p.Name, err)
		}
	}
	wantEcho(t, "tcp", port)
	wantEcho(t, "unix", unixSocket)
	if _, out := runtimetest.Sh(t, r, "c1", "stat -c '%u %g %a' /tmp/socket"); out != "1000 1000 666\n" {
		t.Errorf("the socket in the container is %q; want 1000 1000 666", out)
	}
	taken := runtime.Proxy{Name: "taken", Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}}
	if err := r.AddProxy(t.Context(), "c1", taken); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("AddProxy on a port in use: %v; want an error that says so", err)
	}
	if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, "tcp", port)
	wantEcho(t, "unix", unixSocket)
	if err := r.RemoveProxy(t.Context(), "c1", "in tcp"); err != nil {
		t.Fatal(err)
	}
	if _, err := echo("tcp", port); err == nil {
		t.Error("a proxy that was removed still answers")
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(unixSocket); !os.IsNotExist(err) {
		t.Errorf("a proxy's socket is left: %v", err)
	}
	wantNothingLeft(t, r, "c1")
}

// A link of the container's does not lead a proxy to a socket of the host.
func TestProxiesDoNotEscape(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(t, listener)
	script := fmt.Sprintf("ln -s %[1]s/host /tmp/a; ln -s /proc/1/root%[1]s/host /tmp/b; ln -s / /tmp/c", dir)
	if code, out := runtimetest.Sh(t, r, "c1", script); code != 0 {
		t.Fatal(out)
	}
	for i, path := range []string{"/tmp/a", "/tmp/b", "/tmp/c" + dir + "/host", "/../../../.." + dir + "/host"} {
		socket := filepath.Join(dir, strconv.Itoa(i))
		p := runtime.Proxy{Name: socket, Listen: []runtime.Endpoint{{Network: "unix", Address: socket}}, Connect: []runtime.Endpoint{{Network: "unix", Address: path}}}
		if len(p.Name) > 100 {
			p.Name = strconv.Itoa(i)
		}
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatal(err)
		}
		if got, err := echo("unix", socket); err == nil {
			t.Errorf("a proxy to %s of the container reaches the host: %q", path, got)
		}
	}
}

// The proxy protocol tells the server who connects.
func TestProxyProtocol(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	server := echoServer(t)
	port := "127.0.0.1:" + strconv.Itoa(20000+os.Getpid()%20000)
	for _, p := range []runtime.Proxy{
		{Name: "out", InContainer: true, Listen: []runtime.Endpoint{{Network: "unix", Address: "@x"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "in", ProxyProtocol: true, Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "unix", Address: "@x"}}},
	} {
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := echo("tcp", port)
	if err != nil || !strings.HasPrefix(got, "echo PROXY TCP4 127.0.0.1 127.0.0.1 ") {
		t.Errorf("the server heard %q, %v; want the client's address first", got, err)
	}
}
