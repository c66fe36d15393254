package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/state"
)

// Each row is a story: what is done first, and what then becomes of one command.
func TestCommands(t *testing.T) {
	const project = "default"
	print := strings.Repeat("cd", 32)
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	instance := func(name string) []Command {
		return []Command{
			CreateInstance{Instance: state.Instance{Project: project, Name: name, Location: "ant", Profiles: []string{"default"}}, Intent: state.Intent{ID: name}},
			FinishCreate{Project: project, Name: name, IntentID: name},
		}
	}
	begin := func(subject, name, kind string) Command {
		return Begin{Intent: state.Intent{ID: kind + name, Subject: subject, Project: project, Name: name, Kind: kind, Member: "ant"}}
	}
	pool := func(name string) Command { return CreatePool{Pool: state.Pool{Name: name, Driver: "dir"}} }
	network := func(name string) Command {
		return CreateNetwork{Network: state.Network{Project: project, Name: name}}
	}
	on := state.Locals{"ant": {}}
	image := func(print string) Command {
		return AddImage{Image: state.Image{Project: project, Fingerprint: print}}
	}
	profile := func(name string) Command {
		return CreateProfile{Profile: state.Profile{Project: project, Name: name}}
	}
	token := func(id string) Command {
		return AddToken{Token: state.Token{ID: id, SecretHash: "hash", ExpiresAt: at}}
	}
	join := func(groups ...[]Command) (all []Command) {
		for _, group := range groups {
			all = append(all, group...)
		}
		return all
	}

	s := freshStore(t)
	for name, tc := range map[string]struct {
		first   []Command
		command Command
		kind    error  // nil when it must succeed
		words   string // of the error
	}{
		"a name is free only once": {
			instance("a1"), instance("a1")[0], state.ErrExists, `instance "a1" already exists`,
		},
		"an instance needs a project": {
			nil, CreateInstance{Instance: state.Instance{Project: "moon", Name: "a2", Location: "ant"}, Intent: state.Intent{ID: "x"}}, state.ErrNotFound, `project "moon" not found`,
		},
		"an instance needs a member": {
			nil, CreateInstance{Instance: state.Instance{Project: project, Name: "a3", Location: "moth"}, Intent: state.Intent{ID: "x"}}, state.ErrNotFound, `member "moth" not found`,
		},
		"an instance needs its profiles": {
			nil, CreateInstance{Instance: state.Instance{Project: project, Name: "a4", Location: "ant", Profiles: []string{"default", "gone"}}, Intent: state.Intent{ID: "x"}}, state.ErrNotFound, `profile "gone" not found`,
		},
		"an instance has a profile once": {
			nil, CreateInstance{Instance: state.Instance{Project: project, Name: "a5", Location: "ant", Profiles: []string{"default", "default"}}, Intent: state.Intent{ID: "x"}}, state.ErrInvalid, `profile "default" twice`,
		},
		"an instance needs its image": {
			nil, CreateInstance{Instance: state.Instance{Project: project, Name: "a6", Location: "ant"}, Intent: state.Intent{ID: "x"}, Image: print}, state.ErrNotFound, `image "cdcdcdcdcdcd" not found`,
		},
		"an instance needs its networks": {
			nil, CreateInstance{Instance: state.Instance{Project: project, Name: "a7", Location: "ant", Devices: state.Devices{"eth0": {"type": "nic", "network": "ghost"}}}, Intent: state.Intent{ID: "x"}}, state.ErrNotFound, `device "eth0": network "ghost" not found`,
		},
		"a network being deleted takes nobody in": {
			[]Command{CreateNetwork{Network: state.Network{Project: project, Name: "n8", Locals: on}}, DeleteNetwork{Project: project, Name: "n8"}}, CreateInstance{Instance: state.Instance{Project: project, Name: "a8", Location: "ant", Devices: state.Devices{"eth0": {"type": "nic", "network": "n8"}}}, Intent: state.Intent{ID: "x"}}, state.ErrConflict, `network "n8" is busy: delete is under way`,
		},
		"a pool being deleted takes nobody in": {
			[]Command{CreatePool{Pool: state.Pool{Name: "p9", Driver: "dir", Locals: on}}, DeletePool{Name: "p9"}}, CreateInstance{Instance: state.Instance{Project: project, Name: "a9", Location: "ant", Devices: state.Devices{"root": {"type": "disk", "pool": "p9"}}}, Intent: state.Intent{ID: "x"}}, state.ErrConflict, `pool "p9" is busy`,
		},
		"an image being deleted makes no instance": {
			[]Command{image("e0"), begin(SubjectImage, "e0", "delete")}, CreateInstance{Instance: state.Instance{Project: project, Name: "a10", Location: "ant"}, Intent: state.Intent{ID: "x"}, Image: "e0"}, state.ErrConflict, `image "e0" is busy: delete`,
		},
		"an image stays while an instance is made of it": {
			[]Command{image("e1"), CreateInstance{Instance: state.Instance{Project: project, Name: "a11", Location: "ant"}, Intent: state.Intent{ID: "a11"}, Image: "e1"}}, DeleteImage{Project: project, Fingerprint: "e1"}, state.ErrConflict, `instance "a11" is being created from it`,
		},
		"its deletion does not even begin": {
			[]Command{image("e2"), CreateInstance{Instance: state.Instance{Project: project, Name: "a12", Location: "ant"}, Intent: state.Intent{ID: "a12"}, Image: "e2"}}, begin(SubjectImage, "e2", "delete"), state.ErrConflict, `instance "a12" is being created from it`,
		},
		"an image can go when the instance is made": {
			[]Command{image("e3"), CreateInstance{Instance: state.Instance{Project: project, Name: "a13", Location: "ant"}, Intent: state.Intent{ID: "a13"}, Image: "e3"}, FinishCreate{Project: project, Name: "a13", IntentID: "a13"}}, DeleteImage{Project: project, Fingerprint: "e3"}, nil, "",
		},
		"an instance being created cannot be updated": {
			instance("b1")[:1], UpdateInstance{Project: project, Name: "b1"}, state.ErrConflict, `instance "b1" is busy: create is under way`,
		},
		"an instance being deleted cannot be updated": {
			append(instance("b2"), begin(SubjectInstance, "b2", "delete")), UpdateInstance{Project: project, Name: "b2"}, state.ErrConflict, `busy: delete`,
		},
		"an instance being deleted can stop": {
			append(instance("b3"), begin(SubjectInstance, "b3", "delete")), SetInstanceState{Project: project, Name: "b3", Status: state.StatusStopped}, nil, "",
		},
		"an instance being deleted is deleted by the one who began": {
			append(instance("b4"), begin(SubjectInstance, "b4", "delete")), DeleteInstance{Project: project, Name: "b4", IntentID: "deleteb4"}, nil, "",
		},
		"and by nobody else": {
			append(instance("b5"), begin(SubjectInstance, "b5", "delete")), DeleteInstance{Project: project, Name: "b5"}, state.ErrConflict, "busy: delete",
		},
		"a deleted instance is not there": {
			append(instance("b6"), DeleteInstance{Project: project, Name: "b6"}), UpdateInstance{Project: project, Name: "b6"}, state.ErrNotFound, `instance "b6" not found`,
		},
		"only one thing at a time": {
			append(instance("b7"), begin(SubjectInstance, "b7", "start")), begin(SubjectInstance, "b7", "stop"), state.ErrConflict, `instance "b7" is busy: start is under way`,
		},
		"what ended is not ended again": {
			append(instance("b8"), begin(SubjectInstance, "b8", "start"), End{ID: "startb8"}), End{ID: "startb8"}, state.ErrNotFound, `intent "startb8" not found`,
		},
		"what was renewed is not ended by the ID it had": {
			[]Command{begin(SubjectLeftover, "b8/ant", "delete"), Renew{ID: "deleteb8/ant", NewID: "other"}}, End{ID: "deleteb8/ant"}, state.ErrNotFound, `intent "deleteb8/ant" not found`,
		},
		"but by its new one": {
			[]Command{begin(SubjectLeftover, "b8/bee", "delete"), Renew{ID: "deleteb8/bee", NewID: "another"}}, End{ID: "another"}, nil, "",
		},
		"what came to its end is not renewed": {
			[]Command{begin(SubjectLeftover, "b8/cat", "delete"), End{ID: "deleteb8/cat"}}, Renew{ID: "deleteb8/cat", NewID: "third"}, state.ErrNotFound, `intent "deleteb8/cat" not found`,
		},
		"what is under way for an instance is renewed, too": {
			append(instance("b13"), begin(SubjectInstance, "b13", "start"), Renew{ID: "startb13", NewID: "fourth"}), End{ID: "startb13"}, state.ErrNotFound, `intent "startb13" not found`,
		},
		"and the instance stays busy with it": {
			append(instance("b14"), begin(SubjectInstance, "b14", "start"), Renew{ID: "startb14", NewID: "fifth"}), begin(SubjectInstance, "b14", "stop"), state.ErrConflict, "start is under way",
		},
		"an intent ends for its own subject": {
			join(instance("b9"), instance("b10"), []Command{begin(SubjectInstance, "b9", "stop")}), SetInstanceState{Project: project, Name: "b10", IntentID: "stopb9"}, state.ErrConflict, `is not about instance "b10"`,
		},
		"an intent that is no more says so": {
			instance("b11"), UpdateInstance{Project: project, Name: "b11", IntentID: "never"}, state.ErrConflict, "has ended",
		},
		"nothing begins for what is not there": {
			nil, begin(SubjectInstance, "nobody", "start"), state.ErrNotFound, `instance "nobody" not found`,
		},
		"a subject is one of six": {
			nil, begin("moon", "x", "start"), state.ErrInvalid, `cannot be about a "moon"`,
		},
		"a name is taken, also by renaming": {
			join(instance("c1"), instance("c2")), RenameInstance{Project: project, Name: "c1", NewName: "c2"}, state.ErrExists, `instance "c2" already exists`,
		},
		"a name has no slash": {
			instance("c3"), RenameInstance{Project: project, Name: "c3", NewName: "c/3"}, state.ErrInvalid, "slash",
		},
		"an instance stays while its snapshot is made": {
			append(instance("d1"), CreateSnapshot{Snapshot: state.Snapshot{Project: project, Instance: "d1", Name: "s"}, Intent: &state.Intent{ID: "d1s"}}), begin(SubjectInstance, "d1", "delete"), state.ErrConflict, `snapshot "d1/s" is busy: create`,
		},
		"a busy instance has no snapshot made": {
			append(instance("d2"), begin(SubjectInstance, "d2", "restore")), CreateSnapshot{Snapshot: state.Snapshot{Project: project, Instance: "d2", Name: "s"}}, state.ErrConflict, `instance "d2" is busy: restore`,
		},
		"but by the one who is at it": {
			instance("d3")[:1], CreateSnapshot{Snapshot: state.Snapshot{Project: project, Instance: "d3", Name: "s"}, Within: "d3"}, nil, "",
		},
		"a snapshot's name is free only once": {
			append(instance("d4"), CreateSnapshot{Snapshot: state.Snapshot{Project: project, Instance: "d4", Name: "s"}}), CreateSnapshot{Snapshot: state.Snapshot{Project: project, Instance: "d4", Name: "s"}}, state.ErrExists, `snapshot "s" of instance "d4" already exists`,
		},
		"the default profile stays": {
			nil, DeleteProfile{Project: project, Name: "default"}, state.ErrForbidden, "stays",
		},
		"the default profile keeps its name": {
			nil, RenameProfile{Project: project, Name: "default", NewName: "x"}, state.ErrForbidden, "keeps its name",
		},
		"a profile in use stays, and the error names its users": {
			[]Command{profile("e4"), CreateInstance{Instance: state.Instance{Project: project, Name: "e4u", Location: "ant", Profiles: []string{"e4"}}, Intent: state.Intent{ID: "e4"}}}, DeleteProfile{Project: project, Name: "e4"}, state.ErrConflict, `profile "e4" is in use by e4u`,
		},
		"a network in use stays": {
			[]Command{network("n1"), CreateProfile{Profile: state.Profile{Project: project, Name: "e5", Devices: state.Devices{"eth0": {"type": "nic", "network": "n1"}}}}}, DeleteNetwork{Project: project, Name: "n1"}, state.ErrConflict, `network "n1" is in use by profile "e5"`,
		},
		"a network in use keeps its name": {
			[]Command{network("n2"), CreateProfile{Profile: state.Profile{Project: project, Name: "e6", Devices: state.Devices{"eth0": {"type": "nic", "network": "n2"}}}}}, RenameNetwork{Project: project, Name: "n2", NewName: "n3"}, state.ErrConflict, "in use",
		},
		"a pool with volumes stays": {
			[]Command{pool("p1"), CreateVolume{Volume: state.Volume{Pool: "p1", Project: project, Type: state.VolumeCustom, Name: "v"}}}, DeletePool{Name: "p1"}, state.ErrConflict, `it has custom volume "v"`,
		},
		"a pool with images goes": {
			[]Command{pool("p2"), CreateVolume{Volume: state.Volume{Pool: "p2", Project: project, Type: state.VolumeImage, Name: "v", Location: "ant"}}}, DeletePool{Name: "p2"}, nil, "",
		},
		"a pool in use stays": {
			[]Command{pool("p3"), CreateProfile{Profile: state.Profile{Project: project, Name: "e7", Devices: state.Devices{"root": {"type": "disk", "pool": "p3", "path": "/"}}}}}, DeletePool{Name: "p3"}, state.ErrConflict, `in use by profile "e7"`,
		},
		"a custom volume in use stays": {
			[]Command{pool("p4"), CreateVolume{Volume: state.Volume{Pool: "p4", Project: project, Type: state.VolumeCustom, Name: "v"}}, CreateProfile{Profile: state.Profile{Project: project, Name: "e8", Devices: state.Devices{"d": {"type": "disk", "pool": "p4", "source": "v", "path": "/d"}}}}}, DeleteVolume{Ref: VolumeRef{Pool: "p4", Project: project, Type: state.VolumeCustom, Name: "v"}}, state.ErrConflict, `in use by profile "e8"`,
		},
		"a volume needs its pool": {
			nil, CreateVolume{Volume: state.Volume{Pool: "none", Project: project, Type: state.VolumeCustom, Name: "v"}}, state.ErrNotFound, `storage pool "none" not found`,
		},
		"an alias needs its image": {
			nil, CreateAlias{Alias: state.ImageAlias{Project: project, Name: "x", Target: "nope"}}, state.ErrNotFound, `image "nope" not found`,
		},
		"an alias is free only once": {
			[]Command{image("f1"), CreateAlias{Alias: state.ImageAlias{Project: project, Name: "f1", Target: "f1"}}}, CreateAlias{Alias: state.ImageAlias{Project: project, Name: "f1", Target: "f1"}}, state.ErrExists, `image alias "f1" already exists`,
		},
		"an image is there only once": {
			[]Command{image("f2")}, image("f2"), state.ErrExists, `image "f2" already exists`,
		},
		"an image with a taken alias is not there": {
			[]Command{image("f3"), CreateAlias{Alias: state.ImageAlias{Project: project, Name: "f3", Target: "f3"}}}, AddImage{Image: state.Image{Project: project, Fingerprint: "f4"}, Aliases: []state.ImageAlias{{Name: "f3"}}}, state.ErrExists, `image alias "f3"`,
		},
		"a certificate is there only once": {
			[]Command{AddCertificate{Certificate: state.Certificate{Fingerprint: "g1"}}}, AddCertificate{Certificate: state.Certificate{Fingerprint: "g1"}}, state.ErrExists, "Certificate already in trust store",
		},
		"a token works once": {
			[]Command{token("h1"), ConsumeToken{ID: "h1", SecretHash: "hash", Now: at}}, ConsumeToken{ID: "h1", SecretHash: "hash", Now: at}, state.ErrForbidden, "used already",
		},
		"a token needs its secret": {
			[]Command{token("h2")}, ConsumeToken{ID: "h2", SecretHash: "guess", Now: at}, state.ErrForbidden, "unknown",
		},
		"a token expires": {
			[]Command{token("h3")}, ConsumeToken{ID: "h3", SecretHash: "hash", Now: at.Add(time.Second)}, state.ErrForbidden, "expired at 2026-11-21T12:00:00Z",
		},
		"a token is not lost with a certificate that is there": {
			[]Command{token("h4"), AddCertificate{Certificate: state.Certificate{Fingerprint: "g2"}}}, ConsumeToken{ID: "h4", SecretHash: "hash", Now: at, Certificate: &state.Certificate{Fingerprint: "g2"}}, state.ErrExists, "Certificate already in trust store",
		},
		"a member with instances stays": {
			instance("i1"), DeleteMember{Name: "ant"}, state.ErrConflict, "still has instances",
		},
		"a member's name is free only once": {
			[]Command{AddMember{Member: state.Member{ID: "j1", Name: "j1"}}}, AddMember{Member: state.Member{ID: "j2", Name: "j1"}}, state.ErrExists, `"j1"`,
		},
		"the default project stays": {
			nil, DeleteProject{Name: "default"}, state.ErrForbidden, "stays",
		},
		"a project with something in it stays": {
			[]Command{CreateProject{Project: state.Project{Name: "k1"}}, AddImage{Image: state.Image{Project: "k1", Fingerprint: "k1"}}}, DeleteProject{Name: "k1"}, state.ErrConflict, "it has 1 images",
		},
		"an empty project goes": {
			[]Command{CreateProject{Project: state.Project{Name: "k2"}}}, DeleteProject{Name: "k2"}, nil, "",
		},
		"settings of a stranger are nobody's": {
			nil, SetSettings{Member: "moth", Local: map[string]string{"a": "b"}}, state.ErrNotFound, `member "moth" not found`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range tc.first {
				must(t, s, command)
			}
			before := dump(t, s.View())
			if tc.kind == nil {
				must(t, s, tc.command)
				return
			}
			refused(t, s, tc.command, tc.kind, tc.words)
			if after := dump(t, s.View()); after != before {
				t.Error("the command was refused and left something behind")
			}
		})
	}
	consistent(t, s)
}

// What was read before somebody else changed it cannot be written back.
func TestExpectedRevisions(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	must(t, s, SetInstanceState{Project: "default", Name: "c1", IntentID: "i3"})
	v, print := s.View(), strings.Repeat("ab", 32)
	revision := func(meta state.Meta, err error) state.Revision {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return meta.Revision
	}
	member, err := v.Member("ant")
	member2 := revision(member.Meta, err)
	for name, command := range map[string]func(r state.Revision) Command{
		"instance": func(r state.Revision) Command {
			return UpdateInstance{Project: "default", Name: "c1", ExpectRevision: r}
		},
		"snapshot": func(r state.Revision) Command {
			return UpdateSnapshot{Project: "default", Instance: "c1", Name: "s1", ExpectRevision: r}
		},
		"profile": func(r state.Revision) Command {
			return UpdateProfile{Project: "default", Name: "net", ExpectRevision: r}
		},
		"network": func(r state.Revision) Command {
			return UpdateNetwork{Project: "default", Name: "br0", ExpectRevision: r}
		},
		"pool": func(r state.Revision) Command { return UpdatePool{Name: "fast", ExpectRevision: r} },
		"image": func(r state.Revision) Command {
			return UpdateImage{Project: "default", Fingerprint: print, ExpectRevision: r}
		},
		"alias": func(r state.Revision) Command {
			return UpdateAlias{Project: "default", Name: "busybox/1", Target: print, ExpectRevision: r}
		},
		"project":     func(r state.Revision) Command { return UpdateProject{Name: "web", ExpectRevision: r} },
		"certificate": func(r state.Revision) Command { return UpdateCertificate{Fingerprint: print, ExpectRevision: r} },
		"volume": func(r state.Revision) Command {
			return UpdateVolume{Ref: VolumeRef{"fast", "default", state.VolumeCustom, "data", ""}, ExpectRevision: r}
		},
		"configuration": func(r state.Revision) Command {
			return SetSettings{Cluster: map[string]string{"a": "b"}, ExpectRevision: r}
		},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, s, command(1<<40), state.ErrStale, "has changed")
			// The revision that the View tells is the one that is expected.
			result := must(t, s, command(0))
			must(t, s, command(result.Revision))
			refused(t, s, command(result.Revision), state.ErrStale, "has changed")
		})
	}
	if must(t, s, UpdateMember{Name: "ant", ExpectRevision: member2}); s.View().SettingsRevision("") == 0 {
		t.Error("the settings have no revision")
	}
	consistent(t, s)
}

// A rename travels to everything that mentions the name.
func TestRenames(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	must(t, s, RenameMember{Name: "ant", NewName: "atlas"})
	must(t, s, SetInstanceState{Project: "default", Name: "c1", IntentID: "i3"})
	must(t, s, RenameInstance{Project: "default", Name: "c1", NewName: "c2"})
	must(t, s, UpdateProfile{Project: "default", Name: "net"})
	must(t, s, RenameProfile{Project: "default", Name: "net", NewName: "lan"})
	must(t, s, RenameNetwork{Project: "default", Name: "br0", NewName: "br1"})
	must(t, s, RenameAlias{Project: "default", Name: "busybox/1", NewName: "busybox/2"})
	must(t, s, RenameSnapshot{Project: "default", Instance: "c2", Name: "s1", NewName: "s2"})
	must(t, s, RenameVolume{Ref: VolumeRef{"fast", "default", state.VolumeCustom, "data", ""}, NewName: "more"})

	v, print := s.View(), strings.Repeat("ab", 32)
	i, err := v.Instance("default", "c2")
	if err != nil || i.Location != "atlas" || fmt.Sprint(i.Profiles) != "[lan default]" {
		t.Errorf("instance: %+v, %v", i, err)
	}
	if users := v.ProfileUsers("default", "lan"); len(users) != 1 || users[0] != i {
		t.Errorf("users of the profile: %v", users)
	}
	if on := v.InstancesOn("atlas"); len(on) != 1 || on[0] != i {
		t.Errorf("instances on the member: %v", on)
	}
	if image, err := v.Image("default", print[:8]); err != nil || fmt.Sprint(image.Members) != "[atlas bee]" {
		t.Errorf("image: %+v, %v", image, err)
	}
	for what, err := range map[string]error{
		"snapshot":         second(v.Snapshot("default", "c2", "s2")),
		"container volume": second(v.VolumeOn("atlas", "fast", "default", state.VolumeContainer, "c2")),
		"image volume":     second(v.VolumeOn("atlas", "fast", "default", state.VolumeImage, print)),
		"custom volume":    second(v.Volume("fast", "default", state.VolumeCustom, "more")),
		"network":          second(v.Network("default", "br1")),
		"alias":            second(v.Alias("default", "busybox/2")),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"old instance": second(v.Instance("default", "c1")), "old snapshot": second(v.Snapshot("default", "c1", "s1")),
		"old profile": second(v.Profile("default", "net")), "old member": second(v.Member("ant")),
	} {
		if !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s: %v; want ErrNotFound", what, err)
		}
	}
	if got := v.Setting("atlas", "storage.images_volume"); got != "p/v" {
		t.Errorf("the member's setting is %q", got)
	}
	consistent(t, s)
}

func second[T any](_ T, err error) error { return err }

func TestDeletingAnInstanceTakesItsOwnAlong(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	must(t, s, DeleteInstance{Project: "default", Name: "c1", IntentID: "i3"})
	v := s.View()
	if n := len(v.Snapshots("", "")) + len(v.Intents("")) + len(v.Instances("")); n != 0 {
		t.Errorf("%d snapshots, intents and instances are left", n)
	}
	for _, volume := range v.Volumes("fast", "") {
		if volume.Type == state.VolumeContainer {
			t.Errorf("volume %s is left", volume.Name)
		}
	}
	consistent(t, s)
}

func TestOfTwoCreatorsOneWins(t *testing.T) {
	s := freshStore(t)
	for round := range 20 {
		var won, lost atomic.Int64
		var creators sync.WaitGroup
		for n := range 4 {
			creators.Go(func() {
				command := newInstance(fmt.Sprintf("c%d", round))
				command.Intent.ID = fmt.Sprintf("%d-%d", round, n)
				switch _, err := s.Apply(t.Context(), command); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, state.ErrExists):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		creators.Wait()
		if won.Load() != 1 || lost.Load() != 3 {
			t.Fatalf("%d won and %d were told that the name is taken; want 1 and 3", won.Load(), lost.Load())
		}
	}
	consistent(t, s)
}

// Commands share a transaction and nothing else: each that fails does so alone, also
// when it had written something by then.
func TestCommandsOfAGroupFailAlone(t *testing.T) {
	s := freshStore(t)
	before := s.View().Revision()
	const each = 40
	var commands sync.WaitGroup
	expect := func(kind error, command Command) {
		commands.Go(func() {
			if _, err := s.Apply(t.Context(), command); !errors.Is(err, kind) {
				t.Errorf("%s: %v; want %v", command.name(), err, kind)
			}
		})
	}
	for n := range each {
		name := fmt.Sprintf("c%d", n)
		expect(nil, newInstance(name))
		// Fails at its second statement, after the instance was written.
		late := newInstance("late" + name)
		late.Instance.Profiles = []string{"default", "gone"}
		expect(state.ErrNotFound, late)
		expect(state.ErrNotFound, UpdateInstance{Project: "default", Name: "nobody" + name})
	}
	commands.Wait()
	v := s.View()
	if got := len(v.Instances("")); got != each {
		t.Errorf("%d instances; want %d", got, each)
	}
	if got := v.Revision() - before; got != each {
		t.Errorf("%d revisions; want one for each of the %d commands that changed something", got, each)
	}
	consistent(t, s)
}

func TestARepeatedCommandIsAnsweredNotRun(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	done, failed := Origin{ID: "done"}, Origin{ID: "failed"}
	command := newInstance("c1")
	first, err := s.ApplyAs(t.Context(), done, command)
	if err != nil {
		t.Fatal(err)
	}
	missing := DeleteInstance{Project: "default", Name: "c2"}
	if _, err := s.ApplyAs(t.Context(), failed, missing); !errors.Is(err, state.ErrNotFound) {
		t.Fatal(err)
	}
	must(t, s, newInstance("c2"))
	for _, when := range []string{"at once", "after reopening"} {
		if again, err := s.ApplyAs(t.Context(), done, command); err != nil || again != first {
			t.Errorf("%s: %+v, %v; want the first outcome %+v", when, again, err, first)
		}
		if _, err := s.ApplyAs(t.Context(), failed, missing); !errors.Is(err, state.ErrNotFound) || !strings.Contains(err.Error(), `instance "c2" not found`) {
			t.Errorf("%s: %v; want the first outcome, not found", when, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
	if got := len(s.View().Instances("")); got != 2 {
		t.Errorf("%d instances; want 2", got)
	}
	var twins sync.WaitGroup
	for range 8 {
		twins.Go(func() {
			if _, err := s.ApplyAs(context.WithoutCancel(t.Context()), Origin{ID: "twin"}, newInstance("c3")); err != nil {
				t.Errorf("twin: %v", err)
			}
		})
	}
	twins.Wait()
}

func TestAnOldCoordinatorIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	set := func(term uint64) error {
		_, err := s.ApplyAs(t.Context(), Origin{Term: term}, SetSettings{Cluster: map[string]string{"term": fmt.Sprint(term)}})
		return err
	}
	if err := set(7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if err := set(6); !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "newest term is 7") {
		t.Errorf("term 6 after 7: %v; want ErrConflict", err)
	}
	if err := errors.Join(set(7), set(0), set(8)); err != nil {
		t.Errorf("terms 7, none and 8 after 7: %v", err)
	}
	// A term counts also when the command came to nothing.
	if _, err := s.ApplyAs(t.Context(), Origin{Term: 9}, DeletePool{Name: "none"}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("term 9: %v", err)
	}
	if err := set(8); !errors.Is(err, state.ErrConflict) {
		t.Errorf("term 8 after 9: %v; want ErrConflict", err)
	}
}

// Objects of the View share nothing with the commands they came from.
func TestTheViewIsNobodyElses(t *testing.T) {
	s := freshStore(t)
	command := newInstance("c1")
	must(t, s, command)
	before := dump(t, s.View())
	command.Instance.Config["image.os"] = "changed"
	command.Instance.Profiles[0] = "changed"
	if dump(t, s.View()) != before {
		t.Error("changing the command's maps changed the View")
	}
}
