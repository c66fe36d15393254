package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"muster/test/lab"
)

// hostName is a name that leads to the address: the C library reads such numbers.
func hostName(t *testing.T, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	ip := net.ParseIP(host).To4()
	return net.JoinHostPort(fmt.Sprintf("0x%02x%02x%02x%02x", ip[0], ip[1], ip[2], ip[3]), port)
}

// A name that leads to the machine's own loopback is no address for a cluster; one that
// leads to where the others reach the member is, before and after it is in a cluster.
func TestAHostNameAsAddress(t *testing.T) {
	t.Parallel()
	options := lab.Options{NoInit: true, Network: lab.NewNetwork(t), Env: []string{"GODEBUG=netdns=cgo"}}
	first, second := lab.Start(t, options), lab.Start(t, options)
	first.Purges()
	second.Purges(first)
	set := func(m *lab.Member, address string) lab.Answer {
		t.Helper()
		answer, err := m.Request(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"core.https_address": address}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	shows := func(m *lab.Member, name, url string) {
		t.Helper()
		eventually(t, func() string {
			var row struct{ URL, Message string }
			if err := m.Get(t.Context(), "/1.0/cluster/members/"+name, &row); err != nil || row.URL != "https://"+url {
				return fmt.Sprintf("%s is at %q, %v; want %s", name, row.URL, err, url)
			}
			return ""
		})
	}

	// Alone it may be: clients look the name up for themselves.
	if answer := set(first, "localhost:8443"); answer.Code != http.StatusOK {
		t.Fatalf("a server alone refuses localhost: %d %q", answer.Code, answer.Error)
	}
	var server struct{ Environment struct{ Addresses []string } }
	if err := first.Get(t.Context(), "/1.0", &server); err != nil || len(server.Environment.Addresses) != 1 || server.Environment.Addresses[0] != "localhost:8443" {
		t.Errorf("the server shows the addresses %q, %v; want the name, as LXD does", server.Environment.Addresses, err)
	}
	enable := map[string]any{"server_name": "m1", "enabled": true}
	answer, err := first.Request(t.Context(), http.MethodPut, "/1.0/cluster", enable, nil)
	if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, `the host "localhost" leads to`) {
		t.Errorf("a cluster at localhost: %d %q, %v; want 400 and where it leads", answer.Code, answer.Error, err)
	}

	if answer := set(first, hostName(t, first.Address())); answer.Code != http.StatusOK {
		t.Fatalf("a name of this machine: %d %q", answer.Code, answer.Error)
	}
	if _, err := first.Do(t.Context(), http.MethodPut, "/1.0/cluster", enable); err != nil {
		t.Fatal(err)
	}
	shows(first, "m1", first.Address())
	token := first.Token("m2")
	if addresses := fmt.Sprint(token["addresses"]); addresses != "["+first.Address()+"]" {
		t.Errorf("a join token has the addresses %s; want %s", addresses, first.Address())
	}
	body := joinBody(token, second)
	body["server_address"] = "localhost:8443"
	answer, err = second.Request(t.Context(), http.MethodPut, "/1.0/cluster", body, nil)
	if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, `the host "localhost" leads to`) || !strings.Contains(answer.Error, "server_address") {
		t.Errorf("join as localhost: %d %q, %v; want 400 and where it leads", answer.Code, answer.Error, err)
	}
	body["server_address"] = hostName(t, second.Address())
	if _, err := second.Do(t.Context(), http.MethodPut, "/1.0/cluster", body); err != nil {
		t.Fatal(err)
	}
	shows(first, "m2", second.Address())

	if answer := set(second, "localhost:8443"); answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, `the host "localhost" leads to`) {
		t.Errorf("a member at localhost: %d %q; want 400 and where it leads", answer.Code, answer.Error)
	}
	if answer := set(second, "nowhere.invalid:8443"); answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, "is not known here") {
		t.Errorf("a member at a name that is unknown: %d %q; want 400", answer.Code, answer.Error)
	}
	if answer := set(second, hostName(t, second.Address())); answer.Code != http.StatusOK {
		t.Fatalf("a member at a name of its machine: %d %q", answer.Code, answer.Error)
	}
	// What else is set, and a restart, leave it there.
	second.Muster("config", "set", "user.note", "kept")
	shows(first, "m2", second.Address())
	second.Restart()
	status(t, first, "m1 Online", "m2 Online")
	shows(second, "m2", second.Address())
	if got := strings.TrimSpace(second.Muster("config", "get", "core.https_address")); got != hostName(t, second.Address()) {
		t.Errorf("core.https_address is %q; want the name that was set", got)
	}
}
