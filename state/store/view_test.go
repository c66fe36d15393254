package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

func TestFingerprintsMayBeShort(t *testing.T) {
	s := freshStore(t)
	must(t, s, CreateProject{Project: state.Project{Name: "web"}})
	for project, prints := range map[string][]string{"default": {"abc1", "abd2", "ab"}, "web": {"abc9"}} {
		for _, print := range prints {
			must(t, s, AddImage{Image: state.Image{Project: project, Fingerprint: print}})
			if project == "default" {
				must(t, s, AddCertificate{Certificate: state.Certificate{Fingerprint: print}})
			}
		}
	}
	v := s.View()
	for name, tc := range map[string]struct {
		prefix string
		want   string
		kind   error
	}{
		"the whole":                              {"abc1", "abc1", nil},
		"enough of it":                           {"abd", "abd2", nil},
		"in capitals":                            {"ABD", "abd2", nil},
		"too little":                             {"a", "", state.ErrInvalid},
		"the whole of one is the prefix of some": {"ab", "ab", nil},
		"another":                                {"abe", "", state.ErrNotFound},
		"more than there is":                     {"abc12", "", state.ErrNotFound},
		"nothing":                                {"", "", state.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			image, err := v.Image("default", tc.prefix)
			if !errors.Is(err, tc.kind) || err == nil && image.Fingerprint != tc.want {
				t.Errorf("image %q: %+v, %v; want %q, %v", tc.prefix, image, err, tc.want, tc.kind)
			}
			certificate, err := v.Certificate(tc.prefix)
			if !errors.Is(err, tc.kind) || err == nil && certificate.Fingerprint != tc.want {
				t.Errorf("certificate %q: %+v, %v; want %q, %v", tc.prefix, certificate, err, tc.want, tc.kind)
			}
		})
	}
}

func TestListsAreSortedAndOfTheirProject(t *testing.T) {
	s := freshStore(t)
	must(t, s, CreateProject{Project: state.Project{Name: "web"}})
	must(t, s, CreateProject{Project: state.Project{Name: "we"}})
	for _, at := range []string{"web/b", "default/c10", "default/c1", "we/z", "default/c", "web/a"} {
		project, name := at[:len(at)-2], at[len(at)-1:]
		if n, _ := fmt.Sscanf(at, "default/%s", &name); n == 1 {
			project = "default"
		}
		must(t, s, CreateInstance{Instance: state.Instance{Project: project, Name: name, Location: "ant", Profiles: []string{"default"}}, Intent: state.Intent{ID: at}})
	}
	v := s.View()
	names := func(instances []*state.Instance) (names []string) {
		for _, i := range instances {
			names = append(names, i.Project+"/"+i.Name)
		}
		return names
	}
	for project, want := range map[string][]string{
		"default": {"default/c", "default/c1", "default/c10"},
		"web":     {"web/a", "web/b"},
		"w":       nil,
		"":        {"default/c", "default/c1", "default/c10", "we/z", "web/a", "web/b"},
	} {
		if diff := cmp.Diff(want, names(v.Instances(project))); diff != "" {
			t.Errorf("instances of %q (-want +got):\n%s", project, diff)
		}
	}
	if got := names(v.InstancesOn("ant")); len(got) != 6 {
		t.Errorf("on ant: %v", got)
	}
	if got := names(v.InstancesOn("an")); len(got) != 0 {
		t.Errorf("on an: %v", got)
	}
	if got := names(v.ProfileUsers("web", "default")); len(got) != 2 {
		t.Errorf("users of web's default profile: %v", got)
	}
}

func TestSettings(t *testing.T) {
	s := freshStore(t)
	must(t, s, SetSettings{Cluster: map[string]string{"a": "1", "b": "2"}, Member: "ant", Local: map[string]string{"a": "3"}})
	set := must(t, s, SetSettings{Cluster: map[string]string{"a": "", "c": "4"}}).Revision
	v := s.View()
	got := map[string]string{}
	for _, setting := range v.Settings("") {
		got[setting.Key] = setting.Value
	}
	if diff := cmp.Diff(map[string]string{"b": "2", "c": "4"}, got); diff != "" {
		t.Errorf("settings of the cluster (-want +got):\n%s", diff)
	}
	if v.Setting("", "a") != "" || v.Setting("ant", "a") != "3" || len(v.Settings("ant")) != 1 {
		t.Errorf("a is %q for the cluster and %q for the member", v.Setting("", "a"), v.Setting("ant", "a"))
	}
	// Unsetting is a change too, and what was expected before it is stale.
	unset := must(t, s, SetSettings{Cluster: map[string]string{"c": ""}, ExpectRevision: set}).Revision
	if got := s.View().SettingsRevision(""); got != unset {
		t.Errorf("the configuration is of revision %d; want %d", got, unset)
	}
	if got := s.View().SettingsRevision("ant"); got >= set {
		t.Errorf("the member's configuration is of revision %d; want an older one than %d", got, set)
	}
	refused(t, s, SetSettings{Cluster: map[string]string{"c": "5"}, ExpectRevision: set}, state.ErrStale, "the configuration has changed")
}

// A View that is held shows what it showed.
func TestAViewIsOneMoment(t *testing.T) {
	s := freshStore(t)
	must(t, s, newInstance("c1"))
	held := s.View()
	before := dump(t, held)
	must(t, s, newInstance("c2"))
	must(t, s, DeleteInstance{Project: "default", Name: "c1", IntentID: "create-c1"})
	if dump(t, held) != before {
		t.Error("the View changed while it was held")
	}
	one, _ := held.Instance("default", "c1")
	again, _ := held.Instance("default", "c1")
	if one == nil || one != again || one.Memo == nil {
		t.Error("an object has a memory for its encoding, the same each time")
	}
}
