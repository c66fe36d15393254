package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// shownCertificate is the fingerprint of the certificate that a member shows to clients.
func shownCertificate(t *testing.T, m *lab.Member) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	fingerprint := ""
	err := m.Inside(func() error {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", m.Address())
		if err != nil {
			return err
		}
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is looked at
		defer conn.Close()
		if err := conn.HandshakeContext(ctx); err != nil {
			return err
		}
		fingerprint = certificateSum(conn.ConnectionState().PeerCertificates[0].Raw)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return fingerprint
}

func certificateSum(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// The cluster's certificate is replaced through any member, for all of them and for
// those that were away.
func TestClusterCertificate(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network, NoInit: true})
	first, second, third := members[0], members[1], members[2]
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
	before := shownCertificate(t, first)
	certificate, key := newCertificate(t, time.Now(), "cluster.example")
	other, otherKey := newCertificate(t, time.Now(), "other.example")
	old, oldKey := newCertificate(t, time.Now().Add(-48*time.Hour), "old.example")
	for name, tc := range map[string]struct{ certificate, key, want string }{
		"a key of another pair": {certificate, otherKey, "do not belong together"},
		"no key":                {certificate, "", "private key"},
		"the two swapped":       {key, certificate, "in this order"},
		"one that has expired":  {old, oldKey, "expired"},
		"text":                  {"hello", key, "PEM"},
	} {
		answer, err := first.Request(t.Context(), http.MethodPut, "/1.0/cluster/certificate", map[string]string{"cluster_certificate": tc.certificate, "cluster_certificate_key": tc.key}, nil)
		if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, tc.want) {
			t.Errorf("%s: answered %d %q, %v; want 400 and %q", name, answer.Code, answer.Error, err, tc.want)
		}
	}
	if now := shownCertificate(t, first); now != before {
		t.Error("a refused certificate is shown")
	}

	third.Kill()
	status(t, first, "m1 Online", "m2 Online", "m3 Offline")
	files := map[string]string{"crt": certificate, "key": key}
	for ending, content := range files {
		files[ending] = filepath.Join(second.Dir, "new."+ending)
		if err := os.WriteFile(files[ending], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second.Run("lxc", "cluster", "update-certificate", "local:", files["crt"], files["key"])
	block, _ := pem.Decode([]byte(certificate))
	want := certificateSum(block.Bytes)
	shows := func(m *lab.Member, want string) {
		t.Helper()
		eventually(t, func() string {
			if got := shownCertificate(t, m); got != want {
				return fmt.Sprintf("shows %s; want %s", got, want)
			}
			return ""
		})
	}
	if got := shownCertificate(t, second); got != want {
		t.Errorf("when the answer is there, the member that was asked shows %s; want %s", got, want)
	}
	shows(first, want)
	for i, m := range []*lab.Member{first, second} {
		if fingerprint := m.Token(fmt.Sprintf("m%d", 7+i))["fingerprint"]; fingerprint != want {
			t.Errorf("a join token carries %s; want %s", fingerprint, want)
		}
	}
	third.Up()
	shows(third, want)
	status(t, third, "m1 Online", "m2 Online", "m3 Online")

	// Who joins has it too, and it stays through restarts.
	fourth := lab.Start(t, lab.Options{NoInit: true, Network: network})
	fourth.Purges()
	fourth.Join(third, "m4")
	shows(fourth, want)
	first.Restart()
	shows(first, want)

	t.Run("the key is shown to nobody", func(t *testing.T) {
		if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"user.x": "y"}}); err != nil {
			t.Fatal(err)
		}
		var server struct{ Config map[string]any }
		answer := mustGet(t, first, "/1.0")
		if strings.Contains(string(answer.Metadata), "PRIVATE KEY") {
			t.Error("GET /1.0 shows the key")
		}
		if server = decode[struct{ Config map[string]any }](t, answer); server.Config["user.x"] != "y" {
			t.Errorf("the configuration is %v", server.Config)
		}
		answer, err := first.Request(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"volatile.cluster_certificate": "x"}}, nil)
		if err != nil || answer.Code != http.StatusBadRequest {
			t.Errorf("a client sets the hidden key: %d, %v; want 400", answer.Code, err)
		}
		shows(second, want)
	})

	// Another one, after the configuration was changed.
	if _, err := third.Do(t.Context(), http.MethodPut, "/1.0/cluster/certificate", map[string]string{"cluster_certificate": other, "cluster_certificate_key": otherKey}); err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode([]byte(other))
	for _, m := range append(members, fourth) {
		shows(m, certificateSum(block.Bytes))
	}
	if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m4", nil); err != nil {
		t.Error(err)
	}
}
