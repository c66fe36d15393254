package pki_test

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/cluster/pki"
	"muster/state"
)

// TestMain doubles as the process that is killed while it makes an identity.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MUSTER_TEST_PKI_DIR"); dir != "" {
		_, err := pki.Open(dir, pki.Options{})
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string, opts pki.Options) *pki.Identity {
	t.Helper()
	identity, err := pki.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestAnIdentityIsMadeOnceAndLoadedAfter(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, pki.Options{Hosts: []string{"ant", "10.0.0.1"}})
	second := open(t, dir, pki.Options{MemberID: first.MemberID()})

	if a, b := first.Server().Fingerprint(), second.Server().Fingerprint(); a != b {
		t.Errorf("the cluster certificate changed from %s to %s", a, b)
	}
	if first.MemberID() == "" || first.MemberID() != second.MemberID() {
		t.Errorf("the member ID changed from %q to %q", first.MemberID(), second.MemberID())
	}
	for _, name := range []string{"ant", "10.0.0.1", "localhost", "127.0.0.1", "::1"} {
		if err := second.Server().Leaf.VerifyHostname(name); err != nil {
			t.Errorf("the cluster certificate does not answer for %s: %v", name, err)
		}
	}
	for name, want := range map[string]os.FileMode{"server.key": 0o600, "ca.key": 0o600, "member.key": 0o600, "server.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v); want %v", name, info.Mode().Perm(), err, want)
		}
	}
	if left := names(t, dir); len(left) != 6 {
		t.Errorf("the directory holds %v; want the three pairs alone", left)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func TestOpenRefusesWhatIsNotWhole(t *testing.T) {
	other := t.TempDir()
	open(t, other, pki.Options{})
	copyFrom := func(t *testing.T, dir string, files ...string) {
		for _, name := range files {
			data, err := os.ReadFile(filepath.Join(other, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		damage func(t *testing.T, dir string)
		id     string
		want   string
	}{
		"a key without its certificate":       {remove("server.crt"), "", "server.crt is missing beside"},
		"a certificate without its key":       {remove("server.key"), "", "server.key is missing beside"},
		"a key of another pair":               {func(t *testing.T, dir string) { copyFrom(t, dir, "server.key") }, "", "do not make a pair"},
		"a certificate cut short":             {func(t *testing.T, dir string) { truncate(t, dir, "ca.crt") }, "", "do not make a pair"},
		"a member of another authority":       {func(t *testing.T, dir string) { copyFrom(t, dir, "member.crt", "member.key") }, "", "was not signed by"},
		"the authority lost":                  {func(t *testing.T, dir string) { remove("ca.crt")(t, dir); remove("ca.key")(t, dir) }, "", "restore it from a backup"},
		"a directory of another member":       {func(*testing.T, string) {}, "somebody-else", "the directory mixes two members"},
		"a key that everybody on it may read": {func(t *testing.T, dir string) { chmod(t, dir, "ca.key", 0o644) }, "", "is open to other users"},
		"a pending pair that names other file": {func(t *testing.T, dir string) {
			write(t, dir, "pki.pending", "-----BEGIN X-----\nMuster-File: ../x\n\nAAAA\n-----END X-----\n")
		}, "", "pki.pending is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, pki.Options{})
			tc.damage(t, dir)
			before := strings.Join(names(t, dir), " ")
			_, err := pki.Open(dir, pki.Options{MemberID: tc.id})
			if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open = %v; want a conflict saying %q", err, tc.want)
			}
			if after := strings.Join(names(t, dir), " "); after != before {
				t.Errorf("Open changed the files from %s to %s", before, after)
			}
		})
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Truncate(filepath.Join(dir, name), 100); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, dir, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

func TestAKillWhileTheIdentityIsMadeLeavesNoHalf(t *testing.T) {
	for round := range 40 {
		dir := t.TempDir()
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), "MUSTER_TEST_PKI_DIR="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill at another point of the work each round: after so many files.
		deadline := time.Now().Add(10 * time.Second)
		for len(names(t, dir)) < round%6 && time.Now().Before(deadline) {
		}
		_ = child.Process.Kill()
		_ = child.Wait()
		left := names(t, dir)
		identity, err := pki.Open(dir, pki.Options{})
		if err != nil {
			t.Fatalf("round %d: after a kill that left %v: %v", round, left, err)
		}
		if again := open(t, dir, pki.Options{}); again.Server().Fingerprint() != identity.Server().Fingerprint() {
			t.Fatalf("round %d: after a kill that left %v the certificate changes at each start", round, left)
		}
	}
}

func TestReplacingTheClusterCertificate(t *testing.T) {
	dir := t.TempDir()
	identity := open(t, dir, pki.Options{})
	other := open(t, t.TempDir(), pki.Options{})
	read := func(i *pki.Identity) []byte { return i.Server().CertificatePEM }
	otherKey, err := os.ReadFile(filepath.Join(dir, "member.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.ReplaceServer(read(other), otherKey); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a certificate with another's key: %v; want ErrInvalid", err)
	}
	if err := identity.ReplaceServer([]byte("?"), otherKey); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("no certificate: %v; want ErrInvalid", err)
	}
	memberCert := identity.Member().CertificatePEM
	if err := identity.ReplaceServer(memberCert, otherKey); err != nil {
		t.Fatal(err)
	}
	if got, want := identity.Server().Fingerprint(), identity.Member().Fingerprint(); got != want {
		t.Errorf("after the replacement the certificate is %s; want %s", got, want)
	}
	if again := open(t, dir, pki.Options{}); again.Server().Fingerprint() != identity.Server().Fingerprint() {
		t.Error("the replacement did not survive a restart")
	}
}

func TestJoiningMembersAreSigned(t *testing.T) {
	identity := open(t, t.TempDir(), pki.Options{})
	request, _, err := pki.MakeRequest()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signed, err := identity.SignMember(request, "bee", now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(string(signed))
	if err != nil {
		t.Fatal(err)
	}
	if got := pki.MemberOf(cert); got != "bee" {
		t.Errorf("the certificate names %q; want bee", got)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: identity.Authorities(), DNSName: pki.MemberServerName, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	if got := pki.MemberOf(identity.Server().Leaf); got != "" {
		t.Errorf("the cluster certificate passes for member %q", got)
	}
	damaged := strings.Replace(string(request), "\n", "\nAAAA", 1)
	for name, request := range map[string]string{"nothing": "", "a certificate": string(signed), "a damaged request": damaged} {
		if _, err := identity.SignMember([]byte(request), "bee", now); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("signing %s: %v; want ErrInvalid", name, err)
		}
	}
	if _, err := identity.SignMember(request, strings.Repeat("x", 65), now); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("an ID of 65 characters: %v; want ErrInvalid", err)
	}
}

func TestParseClientCertificate(t *testing.T) {
	identity := open(t, t.TempDir(), pki.Options{})
	pem := string(identity.Server().CertificatePEM)
	now := time.Now()
	for name, tc := range map[string]struct {
		text string
		now  time.Time
		want string // "" when it must be accepted
	}{
		"PEM is accepted":                          {pem, now, ""},
		"PEM with text around it is accepted":      {"subject: x\n" + pem + "\n\n", now, ""},
		"base64 of the DER form is accepted":       {base64.StdEncoding.EncodeToString(identity.Server().Leaf.Raw), now, ""},
		"nothing is refused":                       {" \n", now, "empty"},
		"prose is refused":                         {"my certificate, please", now, "neither PEM"},
		"a private key is refused":                 {"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", now, "private key"},
		"a request is refused":                     {"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", now, "send a CERTIFICATE"},
		"a chain is refused":                       {pem + pem, now, "more than one"},
		"PEM without an end is refused":            {pem[:len(pem)-10], now, "damaged"},
		"PEM around nonsense is refused":           {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", now, "damaged"},
		"base64 of nonsense is refused":            {"AAAA", now, "damaged"},
		"one that expired is refused":              {pem, now.AddDate(30, 0, 0), "expired on"},
		"one that is not valid yet is refused":     {pem, now.AddDate(-1, 0, 0), "check the clocks"},
		"a clock an hour behind makes no trouble":  {pem, now.Add(-time.Hour), ""},
		"ten years later it is still good to come": {pem, now.AddDate(10, 0, 0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := pki.ParseClientCertificate(tc.text, tc.now)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("%v; want it accepted", err)
			case tc.want == "" && pki.Fingerprint(cert) != identity.Server().Fingerprint():
				t.Errorf("fingerprint %s; want %s", pki.Fingerprint(cert), identity.Server().Fingerprint())
			case tc.want != "" && (!errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%v; want ErrInvalid saying %q", err, tc.want)
			}
		})
	}
	if again, err := pki.ParseCertificate(pki.EncodeCertificate(identity.Server().Leaf)); err != nil || !again.Equal(identity.Server().Leaf) {
		t.Errorf("a certificate does not survive encoding and parsing: %v", err)
	}
}

func FuzzParseCertificate(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		cert, err := pki.ParseCertificate(text)
		if err != nil && !errors.Is(err, state.ErrInvalid) || err == nil && cert == nil {
			t.Errorf("ParseCertificate(%q) = %v, %v", text, cert, err)
		}
	})
}

func TestAdoptingAnotherClustersIdentity(t *testing.T) {
	cluster := open(t, t.TempDir(), pki.Options{})
	dir := t.TempDir()
	before := open(t, dir, pki.Options{})
	request, key, err := pki.MakeRequest()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := cluster.SignMember(request, "bee", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := before.SignMember(request, "bee", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.Adopt(dir, cluster.Shared(), stranger, key); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("adopting a certificate of another authority: %v; want ErrInvalid", err)
	}
	if got := open(t, dir, pki.Options{}).MemberID(); got != before.MemberID() {
		t.Errorf("after a refusal the member is %s; want %s as before", got, before.MemberID())
	}
	if err := pki.Adopt(dir, cluster.Shared(), signed, key); err != nil {
		t.Fatal(err)
	}
	after := open(t, dir, pki.Options{})
	if after.MemberID() != "bee" || after.Server().Fingerprint() != cluster.Server().Fingerprint() {
		t.Errorf("the member is %s with cluster certificate %s; want bee and the cluster's own", after.MemberID(), after.Server().Fingerprint())
	}
}
