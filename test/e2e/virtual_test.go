package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"muster/test/lab"
)

// holdsAddress reports whether the member's machine has the address.
func holdsAddress(m *lab.Member, ip string) (holds bool) {
	_ = m.Inside(func() error {
		addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		holds = err == nil && slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.String() == ip })
		return err
	})
	return holds
}

// endpointWatch is a client that asks at one address all the time, and an eye on who has
// it.
type endpointWatch struct {
	mu sync.Mutex
	// last is the last answer, gap the longest time between two since it was reset.
	last time.Time
	gap  time.Duration
	// twice is what was seen of two holders.
	twice string
}

// reset begins to measure anew, from an answer on.
func (w *endpointWatch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap = 0
}

func (w *endpointWatch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.last.IsZero() {
		w.gap = max(w.gap, now.Sub(w.last))
	}
	w.last = now
}

// longest is the longest gap, with the one that is open.
func (w *endpointWatch) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.gap, time.Since(w.last))
}

// since is when there was an answer last.
func (w *endpointWatch) lastAnswer() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// watchEndpoint asks from the client's machine until the test ends.
func watchEndpoint(t *testing.T, client *lab.Member, members []*lab.Member, ip string) *endpointWatch {
	t.Helper()
	w := &endpointWatch{}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); work.Wait() })
	host := ip
	if strings.Contains(ip, ":") {
		host = "[" + ip + "]"
	}
	caller := http.Client{Timeout: 250 * time.Millisecond, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // whoever answers
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = client.Inside(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	work.Go(func() {
		for ctx.Err() == nil {
			if response, err := caller.Get("https://" + host + ":8443/1.0"); err == nil {
				_ = response.Body.Close()
				w.answered()
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			holders := slices.DeleteFunc(slices.Clone(members), func(m *lab.Member) bool { return !holdsAddress(m, ip) })
			// They were looked at one after the other: it may have moved meanwhile.
			if len(holders) > 1 && holdsAddress(holders[0], ip) && holdsAddress(holders[1], ip) {
				w.mu.Lock()
				w.twice = fmt.Sprintf("%d members hold the address at %v", len(holders), time.Now())
				w.mu.Unlock()
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	return w
}

// holderOf waits until one member has the address, other than not.
func holderOf(t *testing.T, members []*lab.Member, ip string, not *lab.Member) *lab.Member {
	t.Helper()
	var holder *lab.Member
	eventually(t, func() string {
		for _, m := range members {
			if m != not && holdsAddress(m, ip) {
				holder = m
				return ""
			}
		}
		return "nobody has " + ip
	})
	return holder
}

// One member at a time has the cluster's address, whatever becomes of it.
func TestVirtualAddress(t *testing.T) {
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network, NoInit: true})
	first := members[0]
	client := lab.Start(t, lab.Options{Network: network, NoInit: true})
	client.Purges()
	online := func() {
		t.Helper()
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m3 Online")
		}
	}
	online()
	set := func(config map[string]string, target string) lab.Answer {
		t.Helper()
		answer, err := first.Request(t.Context(), http.MethodPatch, "/1.0?target="+target, map[string]any{"config": config}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for value, want := range map[string]string{"10.77.7.7": "such as", "10.77.0.2/16": `member "m2"`, "127.0.0.1/8": "such as", "x": "such as"} {
		if answer := set(map[string]string{"cluster.virtual_address": value}, "m1"); answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, want) {
			t.Errorf("%s: answered %d %q; want 400 and %q", value, answer.Code, answer.Error, want)
		}
	}
	for _, ip := range []string{"10.77.7.7", "fd77::7"} {
		t.Run(ip, func(t *testing.T) {
			bits := "/16"
			if strings.Contains(ip, ":") {
				bits = "/64"
				for i, m := range append([]*lab.Member{client}, members...) {
					// It needs an address of that network to answer from.
					if err := m.Inside(func() error {
						cable, err := netlink.LinkByName("eth0")
						if err != nil {
							return err
						}
						return netlink.AddrAdd(cable, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(fmt.Sprintf("fd77::1:%d", i)), Mask: net.CIDRMask(64, 128)}, Flags: 2}) // without DAD
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if answer := set(map[string]string{"cluster.virtual_address": ip + bits}, "m1"); answer.Code != http.StatusOK {
				t.Fatal(answer.Error)
			}
			holder := holderOf(t, members, ip, nil)
			watch := watchEndpoint(t, client, members, ip)
			moves := func(what string, limit time.Duration, lose func(), back func()) {
				t.Helper()
				eventually(t, func() string {
					if time.Since(watch.lastAnswer()) > 100*time.Millisecond {
						return "the address does not answer"
					}
					return ""
				})
				holder = holderOf(t, members, ip, nil)
				watch.reset()
				lose()
				holderOf(t, members, ip, holder)
				moved := time.Now()
				eventually(t, func() string {
					if watch.lastAnswer().Before(moved) {
						return "the new holder does not answer"
					}
					return ""
				})
				gap := watch.longest()
				t.Logf("%s: the longest time without an answer was %v", what, gap.Round(10*time.Millisecond))
				if gap > limit {
					t.Errorf("%s: no answer for %v; want at most %v", what, gap, limit)
				}
				back()
				online()
			}
			lost := func() *lab.Member { return holderOf(t, members, ip, nil) }
			var m *lab.Member
			moves("killed", 3*time.Second, func() { m = lost(); m.Kill() }, func() { m.Up() })
			moves("paused", 3*time.Second, func() { m = lost(); m.Pause() }, func() { m.Resume() })
			moves("cut off", 3*time.Second, func() { m = lost(); network.Partition(m) }, func() { network.Heal() })
			moves("stopped", 1500*time.Millisecond, func() {
				m = lost()
				if err := m.Stop(); err != nil {
					t.Error(err)
				}
			}, func() { m.Up() })
			// An interface that is not there: another member takes it.
			m = lost()
			name := fmt.Sprintf("m%d", slices.Index(members, m)+1)
			if answer := set(map[string]string{"cluster.virtual_address.interface": "nosuch0"}, name); answer.Code != http.StatusOK {
				t.Fatal(answer.Error)
			}
			holderOf(t, members, ip, m)
			if answer := set(map[string]string{"cluster.virtual_address.interface": ""}, name); answer.Code != http.StatusOK {
				t.Fatal(answer.Error)
			}
			watch.mu.Lock()
			if watch.twice != "" {
				t.Error(watch.twice)
			}
			watch.mu.Unlock()
			if answer := set(map[string]string{"cluster.virtual_address": ""}, "m1"); answer.Code != http.StatusOK {
				t.Fatal(answer.Error)
			}
			eventually(t, func() string {
				for i, m := range members {
					if holdsAddress(m, ip) {
						return fmt.Sprintf("m%d still has it", i+1)
					}
				}
				return ""
			})
		})
	}
}
