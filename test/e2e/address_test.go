package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/test/lab"
)

// renumber gives the member's machine one address and takes others away.
func renumber(t *testing.T, m *lab.Member, add string, remove ...string) {
	t.Helper()
	err := m.Inside(func() error {
		// The kernel drops a subnet's other addresses with its first one otherwise.
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/promote_secondaries", []byte("1"), 0o600); err != nil {
			return err
		}
		cable, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		at := func(ip string) *netlink.Addr {
			return &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(16, 32)}}
		}
		if add != "" {
			if err := netlink.AddrAdd(cable, at(add)); err != nil {
				return err
			}
		}
		for _, ip := range remove {
			if err := netlink.AddrDel(cable, at(ip)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// written counts the profiles that addresses made.
var written atomic.Int64

// addresses waits until every member shows the members at these addresses, online, and
// has them in its book, and takes writes.
func addresses(t *testing.T, members []*lab.Member, want ...string) {
	t.Helper()
	for i, m := range members {
		eventually(t, func() string {
			var rows []struct{ URL, Status string }
			if err := m.Get(t.Context(), "/1.0/cluster/members?recursion=1", &rows); err != nil {
				return err.Error()
			}
			for j, row := range rows {
				if row.URL != "https://"+want[j]+":8443" || row.Status != "Online" {
					return fmt.Sprintf("m%d shows %+v; want %v", i+1, rows, want)
				}
			}
			book, err := os.ReadFile(m.Dir + "/members.json")
			for _, address := range want {
				if err != nil || !strings.Contains(string(book), `"`+address+`:8443"`) {
					return fmt.Sprintf("m%d's book is %s, %v; want %v", i+1, book, err, want)
				}
			}
			return ""
		})
		name := fmt.Sprintf("written%d", written.Add(1))
		if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
			t.Errorf("a write through m%d: %v", i+1, err)
		}
	}
}

// Members move to other addresses while they run, while they are down, and all at once.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	first, second, third := members[0], members[1], members[2]
	addresses(t, members, "10.77.0.1", "10.77.0.2", "10.77.0.3")

	t.Run("what the others could not reach is refused", func(t *testing.T) {
		for address, want := range map[string]string{"": "address", "0.0.0.0:8443": "very address", "10.77.0.9:8443": "no address", "10.77.0.1:8443": "", "nonsense/": "address"} {
			answer, err := first.Request(t.Context(), http.MethodPatch, "/1.0?target=m2", map[string]any{"config": map[string]string{"core.https_address": address}}, nil)
			if err != nil || answer.Code < 400 || answer.Code >= 500 || !strings.Contains(answer.Error, want) {
				t.Errorf("%q: answered %d %q, %v; want a refusal", address, answer.Code, answer.Error, err)
			}
		}
		addresses(t, members, "10.77.0.1", "10.77.0.2", "10.77.0.3")
	})

	t.Run("of a member that runs", func(t *testing.T) {
		for i, name := range []string{"m2", "m1"} {
			m := []*lab.Member{second, first}[i]
			now := []string{"10.77.1.2", "10.77.1.1"}[i]
			renumber(t, m, now)
			if _, err := third.Do(t.Context(), http.MethodPatch, "/1.0?target="+name, map[string]any{"config": map[string]string{"core.https_address": now + ":8443"}}); err != nil {
				t.Fatal(err)
			}
			// What goes on over the former address breaks off.
			renumber(t, m, "", strings.Replace(now, "10.77.1", "10.77.0", 1))
		}
		addresses(t, members, "10.77.1.1", "10.77.1.2", "10.77.0.3")
		second.Restart()
		addresses(t, members, "10.77.1.1", "10.77.1.2", "10.77.0.3")
	})

	t.Run("of a member that is down", func(t *testing.T) {
		if err := third.Stop(); err != nil {
			t.Fatal(err)
		}
		renumber(t, third, "10.77.1.3", "10.77.0.3")
		mustSay(t, third, true, "", nil, "musterd cluster set-address")
		mustSay(t, third, true, "", []string{"cluster", "set-address", "0.0.0.0:8443"}, "very address")
		mustSay(t, third, false, "", []string{"cluster", "set-address", "10.77.1.3:8443"})
		third.Up()
		addresses(t, members, "10.77.1.1", "10.77.1.2", "10.77.1.3")
	})

	t.Run("of all at once", func(t *testing.T) {
		for _, m := range members {
			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		for i, m := range members {
			renumber(t, m, fmt.Sprintf("10.77.2.%d", i+1), fmt.Sprintf("10.77.1.%d", i+1))
			for j := range members {
				mustSay(t, m, false, "", []string{"cluster", "set-address", fmt.Sprintf("m%d", j+1), fmt.Sprintf("10.77.2.%d:8443", j+1)})
			}
			mustSay(t, m, true, "", []string{"cluster", "set-address", "m9", "10.77.2.9:8443"}, "no member is called")
		}
		var starting sync.WaitGroup
		for _, m := range members {
			starting.Go(m.Up)
		}
		starting.Wait()
		addresses(t, members, "10.77.2.1", "10.77.2.2", "10.77.2.3")
	})
}
