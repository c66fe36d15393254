package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"muster/cluster"
	"muster/test/lab"
)

// joinBody is what joins the cluster that a token is of.
func joinBody(token map[string]any, m *lab.Member) map[string]any {
	return map[string]any{"enabled": true, "cluster_token": lab.Encode(token), "server_address": m.Address()}
}

// Of two servers that show one token at the same moment one joins, and the other stays
// what it was.
func TestOneTokenUsedTwice(t *testing.T) {
	network := lab.NewNetwork(t)
	first := lab.ClusterOf(t, 1, lab.Options{Network: network, NoInit: true})[0]
	rivals := []*lab.Member{lab.Start(t, lab.Options{NoInit: true, Network: network}), lab.Start(t, lab.Options{NoInit: true, Network: network})}
	for _, m := range rivals {
		m.Purges()
	}
	token := first.Token("m2")
	answers := make([]lab.Answer, len(rivals))
	var asking sync.WaitGroup
	for i, m := range rivals {
		asking.Go(func() {
			var err error
			if answers[i], err = m.Request(t.Context(), http.MethodPut, "/1.0/cluster", joinBody(token, m), nil); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	won := slices.IndexFunc(answers, func(a lab.Answer) bool { return a.Code < 400 })
	lost := slices.IndexFunc(answers, func(a lab.Answer) bool { return a.Code >= 400 })
	if won < 0 || lost < 0 {
		t.Fatalf("answered %d %q and %d %q; want one to join and one to be refused", answers[0].Code, answers[0].Error, answers[1].Code, answers[1].Error)
	}
	if a := answers[lost]; a.Code >= 500 || !strings.Contains(a.Error, "token") {
		t.Errorf("the one that lost is told %d %q", a.Code, a.Error)
	}
	status(t, first, "m1 Online", "m2 Online")
	status(t, rivals[won], "m1 Online", "m2 Online")
	if alone := decode[struct{ Enabled bool }](t, mustGet(t, rivals[lost], "/1.0/cluster")); alone.Enabled {
		t.Error("the one that lost believes that it is in a cluster")
	}
	if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m2", nil); err != nil {
		t.Error(err)
	}
}

// A server joins only where it is itself, and only with the members' protocol.
func TestJoinsThatCannotWork(t *testing.T) {
	network := lab.NewNetwork(t)
	first := lab.ClusterOf(t, 1, lab.Options{Network: network, NoInit: true})[0]
	stranger := lab.Start(t, lab.Options{NoInit: true, Network: network})
	stranger.Purges()

	t.Run("an address that leads to another server", func(t *testing.T) {
		// Both machines have the address; from the first it leads to itself.
		const shared = "10.77.9.9"
		for _, m := range []*lab.Member{first, stranger} {
			err := m.Inside(func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(shared), Mask: net.CIDRMask(32, 32)}})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		var other net.Listener
		if err := first.Inside(func() (err error) {
			other, err = net.Listen("tcp", shared+":8443")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		other = tls.NewListener(other, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
		defer other.Close()
		go func() {
			for {
				conn, err := other.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).Handshake() // it is only looked at
				_ = conn.Close()
			}
		}()
		body := joinBody(first.Token("m2"), stranger)
		body["server_address"] = shared + ":8443"
		answer, err := stranger.Request(t.Context(), http.MethodPut, "/1.0/cluster", body, nil)
		if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, "another server answers there") {
			t.Errorf("answered %d %q, %v; want 400 and that another server answers there", answer.Code, answer.Error, err)
		}
	})

	t.Run("the address of a member", func(t *testing.T) {
		token := first.Token("m3")
		body := joinBody(token, stranger)
		body["server_address"] = first.Address()
		answer, err := stranger.Request(t.Context(), http.MethodPut, "/1.0/cluster", body, nil)
		if err != nil || answer.Code < 400 || answer.Code >= 500 {
			t.Errorf("answered %d %q, %v; want a refusal", answer.Code, answer.Error, err)
		}
		answer = post(t, first, "/internal/join", cluster.JoinRequest{
			Name: "m3", Secret: token["secret"].(string), MemberID: "5f7c9f43-6c9f-4f4e-a1ce-3e4b5a3a3b10", Address: first.Address(), Protocol: cluster.JoinProtocol,
		})
		if answer.Code != http.StatusConflict || !strings.Contains(answer.Error, `member "m1" has the address`) {
			t.Errorf("answered %d %q; want 409 and whose it is", answer.Code, answer.Error)
		}
	})

	t.Run("another protocol", func(t *testing.T) {
		token := first.Token("m4")
		answer := post(t, first, "/internal/join", cluster.JoinRequest{
			Name: "m4", Secret: token["secret"].(string), MemberID: "5f7c9f43-6c9f-4f4e-a1ce-3e4b5a3a3b11", Address: stranger.Address(), Protocol: cluster.JoinProtocol + 1,
		})
		if answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, "install the same release on both") {
			t.Errorf("answered %d %q; want 400 and what to install", answer.Code, answer.Error)
		}
	})

	t.Run("whoever shows no member's certificate is told nothing of members", func(t *testing.T) {
		if answer := post(t, first, "/internal/membership", struct{}{}); answer.Code != http.StatusForbidden {
			t.Errorf("answered %d %q; want 403", answer.Code, answer.Error)
		}
	})
	status(t, first, "m1 Online")
}

// post sends a request to a member over the network, as somebody unknown.
func post(t *testing.T, m *lab.Member, path string, body any) lab.Answer {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is the test's own
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = m.Inside(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	response, err := client.Post("https://"+m.Address()+path, "application/json", bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer := lab.Answer{Code: response.StatusCode}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// selfSigned makes a certificate of nobody.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	certificate, key := newCertificate(t, time.Now(), "nobody")
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// newCertificate makes a certificate that is valid for a day, and its key, in PEM form.
func newCertificate(t *testing.T, from time.Time, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), NotBefore: from.Add(-time.Hour), NotAfter: from.Add(23 * time.Hour), DNSNames: []string{name}}
	template.Subject.CommonName = name
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}))
}

// A member that was removed while it was down is refused by all when it comes back, and
// says so.
func TestRemovedWhileDown(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network, NoInit: true})
	first, third := members[0], members[2]
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
	third.Kill()
	status(t, first, "m1 Online", "m2 Online", "m3 Offline")
	if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m3?force=1", nil); err != nil {
		t.Fatal(err)
	}
	third.Launched()
	eventually(t, func() string {
		answer, err := third.Request(t.Context(), http.MethodGet, "/1.0/cluster/members", nil, nil)
		if err != nil || answer.Code != http.StatusForbidden || !strings.Contains(answer.Error, "was removed from its cluster") {
			return fmt.Sprintf("answered %d %q, %v", answer.Code, answer.Error, err)
		}
		return ""
	})
	if !strings.Contains(third.Log(), "was removed from its cluster") {
		t.Errorf("its log does not say so:\n%s", third.Log())
	}
	status(t, first, "m1 Online", "m2 Online")
	if out, err := inSpace(t, third, "", "shutdown"); err != nil {
		t.Errorf("shutdown of a removed member: %v: %s", err, out)
	}
	if err := third.Exited(t.Context()); err != nil {
		t.Errorf("it ended with %v", err)
	}
	mustSay(t, third, false, "", []string{"cluster", "forget", "--yes"})
	third.Up()
	third.Join(first, "m3")
	status(t, third, "m1 Online", "m2 Online", "m3 Online")
}

// A database that is cut short is refused at the start, alone and in a cluster, and is
// used again once it is whole.
func TestTruncatedDatabase(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	third := members[2]
	status(t, third, "m1 Online", "m2 Online", "m3 Online")
	if _, err := third.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "kept"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		// It has the log once it votes.
		if out := third.Run("musterd", "cluster", "list-database"); strings.Count(out, "| voter    | voter") != 3 {
			return out
		}
		return ""
	})
	if err := third.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"database/*", "raft/*.wal"} {
		files, err := filepath.Glob(filepath.Join(third.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		// The biggest is where the entries are.
		slices.SortFunc(files, func(a, b string) int { return int(size(t, b) - size(t, a)) })
		file := files[0]
		whole, err := os.ReadFile(file)
		if err == nil {
			// Files are prepared ahead of need: what is written ends before they do.
			err = os.Truncate(file, int64(len(bytes.TrimRight(whole, "\x00"))*2/3))
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := inSpace(t, third, "")
		if err == nil || !strings.Contains(out, "is damaged") || !strings.Contains(out, "restore") {
			t.Errorf("with %s cut short the daemon ended with %v and said %q; want that it is damaged, and what to do", file, err, out)
		}
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	third.Up()
	status(t, third, "m1 Online", "m2 Online", "m3 Online")
	if err := third.Get(t.Context(), "/1.0/profiles/kept", &struct{}{}); err != nil {
		t.Error(err)
	}
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A database that a newer release has moved on is refused by this one.
func TestNewerSchema(t *testing.T) {
	m := lab.Start(t, lab.Options{NoInit: true})
	m.Run("musterd", "sql", "--write", "INSERT INTO schema_steps (version, name, applied_at) VALUES (99, 'of the future', '2026-01-01')")
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	out, err := inSpace(t, m, "")
	if err == nil || !strings.Contains(out, "schema 99") || !strings.Contains(out, "newer release") {
		t.Errorf("the daemon ended with %v and said %q; want that it is too old", err, out)
	}
	m.Abandon()
}

// A server whose clock is two hours ahead joins a cluster, and works in it: certificates
// are good for a day before they are made, tokens go by the clock of whoever made them.
func TestJoinWithAWrongClock(t *testing.T) {
	t.Parallel()
	fast := fastClock(t, lab.Programs(t))
	network := lab.NewNetwork(t)
	for name, order := range map[string][]string{"the joining server is ahead": {"", fast}, "the cluster is ahead": {fast, ""}} {
		t.Run(name, func(t *testing.T) {
			first := lab.Start(t, lab.Options{NoInit: true, Network: network, Bin: order[0]})
			second := lab.Start(t, lab.Options{NoInit: true, Network: network, Bin: order[1]})
			first.Purges()
			second.Purges()
			first.Run("lxc", "config", "set", "local:", "core.https_address="+first.Address())
			first.Run("lxc", "cluster", "enable", "local:", "m1")
			second.Join(first, "m2")
			status(t, first, "m1 Online", "m2 Online")
			for i, m := range []*lab.Member{first, second} {
				if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": fmt.Sprintf("p%d", i)}); err != nil {
					t.Error(err)
				}
			}
			second.Restart()
			status(t, second, "m1 Online", "m2 Online")
			if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m2", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// fastClock builds a daemon for which it is two hours later. Go asks the kernel for the
// time without libc, so no library can be put in between: its package time is changed.
func fastClock(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("needs Go: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	original, err := os.ReadFile(source)
	if err != nil {
		t.Skipf("needs the source of Go's library: %v", err)
	}
	before, after, found := strings.Cut(string(original), "\nfunc Now() Time {\n")
	changed := strings.Replace(after, ":= runtimeNow()\n", ":= runtimeNow()\n\tsec += 7200\n", 1)
	if !found || changed == after {
		t.Skip("this release of Go keeps its clock elsewhere")
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(dir, "time.go")}}) // plain text
	for name, content := range map[string][]byte{"time.go": []byte(before + "\nfunc Now() Time {\n" + changed), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", dir, "muster/cmd/musterd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a daemon with a fast clock: %v\n%s", err, out)
	}
	for _, program := range []string{"muster", "muster-shim"} {
		if err := os.Symlink(filepath.Join(bin, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A member of two is removed right after it was killed and came back, whoever leads.
func TestRemovedAfterRestart(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 2, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	first, second := members[0], members[1]
	status(t, first, "m1 Online", "m2 Online")
	second.Restart()
	status(t, second, "m1 Online", "m2 Online")
	if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m2", nil); err != nil {
		t.Error(err)
	}
	status(t, first, "m1 Online")
}
