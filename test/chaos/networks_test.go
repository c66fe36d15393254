package chaos

import (
	"context"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// A daemon that is killed while it makes or removes a network leaves no bridge of nobody's,
// and no network that is stuck.
func TestKillingWhileNetworksAreMade(t *testing.T) {
	lab.NeedsRoot(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	m := lab.Start(t, lab.Options{})
	ctx := t.Context()
	const name = "mtk0"
	path := "/1.0/networks/" + name
	body := map[string]any{"name": name, "config": map[string]string{"ipv4.address": "10.235.3.1/24", "ipv6.address": "none"}}
	for round := range 2 * rounds(t) {
		var work sync.WaitGroup
		cut, stop := context.WithCancel(ctx)
		work.Go(func() {
			for cut.Err() == nil {
				if _, err := m.Do(cut, http.MethodPost, "/1.0/networks", body); err != nil {
					return
				}
				if _, err := m.Do(cut, http.MethodDelete, path, nil); err != nil {
					return
				}
			}
		})
		time.Sleep(time.Duration(random.Intn(150)) * time.Millisecond)
		m.Kill()
		stop()
		work.Wait()
		m.Up()
		// What was under way is finished or taken back, by itself.
		var status string
		deadline := time.Now().Add(60 * time.Second)
		for ; time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			answer, err := m.Request(ctx, http.MethodGet, path, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			managed := strings.Contains(string(answer.Metadata), `"managed":true`)
			status = fmt.Sprintf("%d, %s", answer.Code, answer.Metadata)
			if answer.Code == http.StatusNotFound || managed && strings.Contains(string(answer.Metadata), `"status":"Created"`) {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("round %d: the network is stuck: %s", round, status)
		}
		for _, method := range []string{http.MethodDelete, http.MethodPost, http.MethodDelete} {
			to, content := path, any(nil)
			if method == http.MethodPost {
				to, content = "/1.0/networks", body
			}
			answer, err := m.Request(ctx, method, to, content, nil)
			if err != nil || answer.Code >= 400 && answer.Code != http.StatusNotFound {
				t.Fatalf("round %d, after %s: %s %s: %d %s, %v", round, status, method, to, answer.Code, answer.Error, err)
			}
		}
		interfaces, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(interfaces, func(i net.Interface) bool {
			return i.Name == name || strings.HasPrefix(i.Name, "mu") && strings.HasSuffix(i.Name, "new")
		}) {
			t.Fatalf("round %d: the bridge is left", round)
		}
	}
}

// A daemon that is killed while it plugs an interface into a running instance leaves none
// that is in the way of the next.
func TestKillingWhileInterfacesArePlugged(t *testing.T) {
	lab.NeedsRoot(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	ctx := t.Context()
	if err := m.Launch(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	type network struct {
		Name    string `json:"name"`
		Managed bool   `json:"managed"`
	}
	var networks []network
	if err := m.Get(ctx, "/1.0/networks?recursion=1", &networks); err != nil {
		t.Fatal(err)
	}
	managed := networks[slices.IndexFunc(networks, func(n network) bool { return n.Managed })].Name
	change := func(ctx context.Context, nics ...string) error {
		devices := map[string]any{}
		for _, name := range nics {
			devices[name] = map[string]string{"type": "nic", "network": managed, "name": name}
		}
		_, err := m.Do(ctx, http.MethodPut, "/1.0/instances/c1", map[string]any{"devices": devices, "profiles": []string{"default"}})
		return err
	}
	inside := func() string { return m.Run("lxc", "exec", "c1", "--", "ls", "/sys/class/net") }
	for round := range 2 * rounds(t) {
		var work sync.WaitGroup
		cut, stop := context.WithCancel(ctx)
		work.Go(func() {
			for cut.Err() == nil && change(cut, "eth5") == nil && change(cut) == nil {
			}
		})
		time.Sleep(time.Duration(random.Intn(60)) * time.Millisecond)
		m.Kill()
		stop()
		work.Wait()
		m.Up()
		var recorded struct {
			Devices map[string]map[string]string `json:"devices"`
		}
		if err := m.Get(ctx, "/1.0/instances/c1", &recorded); err != nil {
			t.Fatal(err)
		}
		want := "eth0\nlo\n"
		if recorded.Devices["eth5"] != nil {
			want = "eth0\neth5\nlo\n"
		}
		if got := inside(); got != want {
			t.Fatalf("round %d: the instance has %q and is recorded to have %q", round, got, want)
		}
		if err := change(ctx, "eth5", "eth6"); err != nil {
			t.Fatalf("round %d: add interfaces: %v", round, err)
		}
		if got := inside(); got != "eth0\neth5\neth6\nlo\n" {
			t.Fatalf("round %d: the instance has %q", round, got)
		}
		if err := change(ctx); err != nil {
			t.Fatalf("round %d: remove interfaces: %v", round, err)
		}
		if got := inside(); got != "eth0\nlo\n" {
			t.Fatalf("round %d: the instance has %q", round, got)
		}
	}
}
