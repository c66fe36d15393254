package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster/state"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	if address := os.Getenv(dialSocket); address != "" {
		stranger(address)
		return
	}
	goleak.VerifyTestMain(m)
}

var self = state.Member{ID: "5f0c1f5e-0000-4000-8000-000000000001", Name: "ant", Architecture: "x86_64"}

// open opens a store in dir and closes it with the test.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Member: self})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// freshStore opens a store in a new directory.
func freshStore(t testing.TB) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "database"))
}

// must applies a command that has to succeed.
func must(t testing.TB, s *Store, command Command) Result {
	t.Helper()
	result, err := s.Apply(context.WithoutCancel(t.Context()), command)
	if err != nil {
		t.Fatalf("%s: %v", command.name(), err)
	}
	return result
}

// refused applies a command that has to fail with an error of the kind that says
// what is wrong in those words.
func refused(t testing.TB, s *Store, command Command, kind error, words string) {
	t.Helper()
	_, err := s.Apply(t.Context(), command)
	if !errors.Is(err, kind) || !strings.Contains(fmt.Sprint(err), words) {
		t.Errorf("%s: %v; want %v: … %s …", command.name(), err, kind, words)
	}
}

// dump returns everything in the View as text, one object a line.
func dump(t testing.TB, v *View) string {
	t.Helper()
	batch, err := v.batch()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, record := range batch.Records {
		fmt.Fprintf(&b, "%s %s\n", record.Kind, record.After)
	}
	return b.String()
}

// consistent checks that the View shows what the tables hold: a write that changes
// nothing finds no difference.
func consistent(t testing.TB, s *Store) {
	t.Helper()
	before := dump(t, s.View())
	if _, err := s.Query(t.Context(), "UPDATE fence SET barrier = barrier", nil, true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, dump(t, s.View())); diff != "" {
		t.Errorf("the View was not what the tables hold (-view +tables):\n%s", diff)
	}
}

func TestANewStoreHasWhatAClusterHas(t *testing.T) {
	s := freshStore(t)
	v := s.View()
	if got := v.Revision(); got != 1 {
		t.Errorf("revision %d; want 1", got)
	}
	if p, err := v.Project("default"); err != nil || p.Name != "default" {
		t.Errorf("default project: %v, %v", p, err)
	}
	if p, err := v.Profile("default", "default"); err != nil || len(p.Devices) != 0 {
		t.Errorf("default profile: %v, %v", p, err)
	}
	if m, err := v.MemberByID(self.ID); err != nil || m.Name != self.Name || m.Architecture != self.Architecture {
		t.Errorf("this member: %v, %v", m, err)
	}
}

func TestCloseTwice(t *testing.T) {
	s := freshStore(t)
	subscription, err := s.Subscribe(s.View().Revision())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	refused(t, s, SetSettings{Cluster: map[string]string{"a": "b"}}, state.ErrUnavailable, "closed")
	if _, err := subscription.Next(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("next after close: %v; want ErrUnavailable", err)
	}
	if got := s.View().Revision(); got != 1 {
		t.Errorf("the View of a closed store shows revision %d; want 1", got)
	}
}

// populate makes at least one object of every kind.
func populate(t testing.TB, s *Store) {
	t.Helper()
	at := time.Date(2026, 11, 21, 10, 11, 12, 123456789, time.FixedZone("", 3600))
	print := strings.Repeat("ab", 32)
	for _, command := range []Command{
		SetSettings{Cluster: map[string]string{"core.https_address": ":8443", "user.x": "é\n'\""}, Member: self.Name, Local: map[string]string{"storage.images_volume": "p/v"}},
		AddMember{Member: state.Member{ID: "m2", Name: "bee", Address: "10.0.0.2:8443", Config: state.Config{"user.rack": "1"}, CreatedAt: at}},
		AddCertificate{Certificate: state.Certificate{Fingerprint: print, Type: "client", Name: "me", PEM: "-----", Restricted: true, Projects: []string{"default"}}},
		AddToken{Token: state.Token{ID: "t1", Purpose: "client", Name: "you", SecretHash: "x", ExpiresAt: at}},
		CreateProject{Project: state.Project{Name: "web", Config: state.Config{"features.images": "true"}}},
		CreatePool{Pool: state.Pool{Name: "fast", Driver: "overlay"}},
		CreateNetwork{Network: state.Network{Project: "default", Name: "br0", Type: "bridge", Config: state.Config{"ipv4.nat": "true"}}},
		CreateProfile{Profile: state.Profile{Project: "default", Name: "net", Devices: state.Devices{"eth0": {"type": "nic", "network": "br0"}}}},
		AddImage{Image: state.Image{Project: "default", Fingerprint: print, Size: 1 << 40, Type: "container", Public: true, Properties: map[string]string{"os": "busybox"}, Profiles: []string{"default"}, UploadedAt: at, Source: &state.ImageSource{Server: "https://x", Protocol: "simplestreams"}, Members: []string{"bee", "ant"}}, Aliases: []state.ImageAlias{{Name: "busybox/1"}}},
		CreateVolume{Volume: state.Volume{Pool: "fast", Project: "default", Type: state.VolumeCustom, Name: "data"}},
		CreateVolume{Volume: state.Volume{Pool: "fast", Project: "default", Type: state.VolumeImage, Name: print, Location: "ant"}},
		CreateInstance{
			Instance: state.Instance{Project: "default", Name: "c1", Location: "ant", Profiles: []string{"net", "default"}, Ephemeral: true, CreatedAt: at, Config: state.Config{"volatile.base_image": print}, Devices: state.Devices{"root": {"type": "disk", "pool": "fast", "path": "/"}}},
			Intent:   state.Intent{ID: "i1", Input: "{}"}, Image: print,
			Volume: &state.Volume{Pool: "fast", Project: "default", Type: state.VolumeContainer, Name: "c1", Location: "ant"},
		},
		FinishCreate{Project: "default", Name: "c1", IntentID: "i1", Set: state.Config{"volatile.uuid": "u"}},
		CreateSnapshot{Snapshot: state.Snapshot{Project: "default", Instance: "c1", Name: "s1", ExpiresAt: at}, Intent: &state.Intent{ID: "i2"}},
		FinishSnapshot{Project: "default", Instance: "c1", Name: "s1", IntentID: "i2"},
		Begin{Intent: state.Intent{ID: "i3", Subject: SubjectInstance, Project: "default", Name: "c1", Kind: "start", Member: "ant"}},
	} {
		must(t, s, command)
	}
}

func TestReopeningKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	populate(t, first)
	consistent(t, first)
	want, revision := dump(t, first.View()), first.View().Revision()
	for _, kind := range kinds {
		if !strings.Contains("\n"+want, "\n"+string(kind)+" ") {
			t.Errorf("populate makes no %s", kind)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	if got := second.View().Revision(); got != revision {
		t.Errorf("revision %d; want %d", got, revision)
	}
	if diff := cmp.Diff(want, dump(t, second.View())); diff != "" {
		t.Errorf("after reopening (-before +after):\n%s", diff)
	}
	must(t, second, SetInstanceState{Project: "default", Name: "c1", Status: state.StatusRunning, IntentID: "i3"})
	if got := second.View().Revision(); got != revision+1 {
		t.Errorf("the next revision is %d; want %d", got, revision+1)
	}
}

func TestADirectoryIsOneMembers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Dir: dir, Member: state.Member{ID: "another", Name: "bee"}})
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), self.ID) {
		t.Errorf("opening another member's database: %v; want ErrInvalid naming the owner", err)
	}
}
