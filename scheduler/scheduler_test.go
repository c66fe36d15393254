package scheduler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/scheduler"
	"muster/state"
)

const gib = 1 << 30

func member(name string, change ...func(*scheduler.Member)) scheduler.Member {
	m := scheduler.Member{
		Name: name, Online: true, Architectures: []string{"x86_64"}, Pools: []string{"local"}, Networks: []string{"br0"},
		Groups: []string{"default"}, Capacity: scheduler.Resources{CPU: 8000, Memory: 16 * gib, Disk: 100 * gib},
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func TestPlace(t *testing.T) {
	offline := func(m *scheduler.Member) { m.Online = false }
	manual := func(m *scheduler.Member) { m.Scheduler = "manual" }
	group := func(m *scheduler.Member) { m.Scheduler, m.Groups = "group", []string{"gpu"} }
	tiny := func(m *scheduler.Member) { m.Capacity.Memory = 1 << 20 }
	image := func(m *scheduler.Member) { m.Images = []string{"abc"} }
	web := func(on string) []scheduler.Instance {
		return []scheduler.Instance{{Project: "default", Name: "w", Member: on, Config: state.Config{scheduler.LabelKey: "web"}}}
	}
	for name, tc := range map[string]struct {
		request   scheduler.Request
		members   []scheduler.Member
		instances []scheduler.Instance
		want      string
		kind      error
		reason    string
	}{
		"an empty cluster refuses":             {scheduler.Request{}, nil, nil, "", state.ErrUnavailable, "no members"},
		"an offline member is passed over":     {scheduler.Request{}, []scheduler.Member{member("a", offline), member("b")}, nil, "b", nil, ""},
		"all offline may come back":            {scheduler.Request{}, []scheduler.Member{member("a", offline)}, nil, "", state.ErrUnavailable, "a is offline"},
		"manual takes no automatic placement":  {scheduler.Request{}, []scheduler.Member{member("a", manual)}, nil, "", state.ErrConflict, "manual"},
		"manual takes no group placement":      {scheduler.Request{Target: "@default"}, []scheduler.Member{member("a", manual)}, nil, "", state.ErrConflict, "manual"},
		"manual takes who names it":            {scheduler.Request{Target: "a"}, []scheduler.Member{member("a", manual), member("b")}, nil, "a", nil, ""},
		"group takes no automatic placement":   {scheduler.Request{}, []scheduler.Member{member("a", group)}, nil, "", state.ErrConflict, "scheduler.instance=group"},
		"group takes its group":                {scheduler.Request{Target: "@gpu"}, []scheduler.Member{member("a", group), member("b")}, nil, "a", nil, ""},
		"another architecture is refused":      {scheduler.Request{Architecture: "s390x"}, []scheduler.Member{member("a")}, nil, "", state.ErrConflict, "does not run s390x"},
		"a missing pool is named":              {scheduler.Request{Pools: []string{"fast"}}, []scheduler.Member{member("a")}, nil, "", state.ErrConflict, "no storage pool fast"},
		"a missing network is named":           {scheduler.Request{Networks: []string{"br9"}}, []scheduler.Member{member("a")}, nil, "", state.ErrConflict, "no network br9"},
		"a project keeps to its groups":        {scheduler.Request{Groups: []string{"gpu"}}, []scheduler.Member{member("a"), member("b", func(m *scheduler.Member) { m.Groups = []string{"gpu"} })}, nil, "b", nil, ""},
		"a full member is passed over":         {scheduler.Request{Need: scheduler.DefaultNeed}, []scheduler.Member{member("a", tiny), member("b")}, nil, "b", nil, ""},
		"an image that is there decides a tie": {scheduler.Request{Image: "abc"}, []scheduler.Member{member("a"), member("b", image), member("c")}, nil, "b", nil, ""},
		"affinity goes where the label is":     {scheduler.Request{Project: "default", Config: state.Config{scheduler.AffinityKey: "web"}}, []scheduler.Member{member("a"), member("b")}, web("b"), "b", nil, ""},
		"anti-affinity stays away":             {scheduler.Request{Project: "default", Config: state.Config{scheduler.AntiAffinityKey: "web"}}, []scheduler.Member{member("a"), member("b")}, web("b"), "a", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := scheduler.Place(tc.request, scheduler.Snapshot{Members: tc.members, Instances: tc.instances})
			if d.Member != tc.want || !errors.Is(err, tc.kind) {
				t.Fatalf("placed on %q, %v; want %q, %v", d.Member, err, tc.want, tc.kind)
			}
			if tc.kind != nil && !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("error %q; want it to say %q", err, tc.reason)
			}
			if len(d.Verdicts) != len(tc.members) {
				t.Errorf("%d verdicts for %d members", len(d.Verdicts), len(tc.members))
			}
		})
	}
}

func TestTwoHundredEqualInstancesSpreadEvenly(t *testing.T) {
	s := scheduler.Snapshot{Members: []scheduler.Member{member("a"), member("b"), member("c")}}
	count := map[string]int{}
	for i := range 200 {
		r := scheduler.Request{Project: "default", Name: fmt.Sprint("c", i), Need: scheduler.DefaultNeed, Seed: uint64(i)}
		d, err := scheduler.Place(r, s)
		if err != nil {
			t.Fatal(err)
		}
		count[d.Member]++
		s.Instances = append(s.Instances, scheduler.Instance{Project: "default", Name: r.Name, Member: d.Member, Need: r.Need})
	}
	for name, n := range count {
		if n < 60 || n > 73 {
			t.Errorf("%s got %d of 200; want about 67", name, n)
		}
	}
}

func TestTiesAreSpreadBySeed(t *testing.T) {
	s := scheduler.Snapshot{Members: []scheduler.Member{member("a"), member("b"), member("c")}}
	count := map[string]int{}
	for seed := range uint64(600) {
		d, _ := scheduler.Place(scheduler.Request{Name: "c", Seed: seed}, s)
		count[d.Member]++
	}
	for _, name := range []string{"a", "b", "c"} {
		if count[name] < 140 || count[name] > 260 {
			t.Errorf("%s won %d of 600 ties; want about 200", name, count[name])
		}
	}
}

func draw(t *rapid.T) (scheduler.Request, scheduler.Snapshot) {
	var s scheduler.Snapshot
	need := rapid.Int64Range(0, 4*gib)
	for i := range rapid.IntRange(0, 5).Draw(t, "members") {
		s.Members = append(s.Members, member(fmt.Sprint("m", i), func(m *scheduler.Member) {
			m.Online = rapid.IntRange(0, 3).Draw(t, "online") > 0
			m.Scheduler = rapid.SampledFrom([]string{"", "all", "group", "manual"}).Draw(t, "scheduler")
			m.Capacity.Memory = rapid.Int64Range(0, 16*gib).Draw(t, "memory")
		}))
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "instances") {
		s.Instances = append(s.Instances, scheduler.Instance{
			Project: "default", Name: fmt.Sprint("i", i), Member: fmt.Sprint("m", i%5), Need: scheduler.Resources{Memory: need.Draw(t, "used")},
		})
	}
	return scheduler.Request{Project: "default", Name: "new", Need: scheduler.Resources{Memory: need.Draw(t, "need")}, Seed: rapid.Uint64().Draw(t, "seed")}, s
}

func used(s scheduler.Snapshot, name string) int64 {
	var sum int64
	for _, i := range s.Instances {
		if i.Member == name {
			sum += i.Need.Memory
		}
	}
	return sum
}

func TestPlaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, s := draw(t)
		d, err := scheduler.Place(r, s)
		again, _ := scheduler.Place(r, s)
		if diff := cmp.Diff(d, again); diff != "" {
			t.Fatalf("asked again it decides otherwise:\n%s", diff)
		}
		for _, v := range d.Verdicts {
			if v.Member == d.Member && v.Filter != "" {
				t.Fatalf("%s was refused by %s and chosen", v.Member, v.Filter)
			}
		}
		if err != nil {
			return
		}
		for _, m := range s.Members {
			if limit := m.Capacity.Memory + m.Capacity.Memory/2; m.Name == d.Member && r.Need.Memory > 0 && used(s, m.Name)+r.Need.Memory > limit {
				t.Fatalf("%s holds %d of %d", m.Name, used(s, m.Name)+r.Need.Memory, limit)
			}
		}
		s.Members = append(s.Members, member("more"))
		if _, err := scheduler.Place(r, s); err != nil {
			t.Fatalf("with one more member: %v", err)
		}
	})
}

func TestPlanNeverOverfills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, s := draw(t)
		var requests []scheduler.Request
		for _, i := range s.Instances {
			if i.Member == "m0" {
				requests = append(requests, scheduler.Request{Project: i.Project, Name: i.Name, Need: i.Need})
			}
		}
		moves, err := scheduler.Plan(requests, s)
		if err != nil {
			return
		}
		if len(moves) != len(requests) {
			t.Fatalf("%d moves for %d instances", len(moves), len(requests))
		}
		grown := map[string]int64{}
		for _, move := range moves {
			if move.To == "m0" || move.From != "m0" {
				t.Fatalf("move %s from %s to %s; want it off m0", move.Name, move.From, move.To)
			}
			for _, i := range s.Instances {
				if i.Name == move.Name {
					grown[move.To] += i.Need.Memory
				}
			}
		}
		for _, m := range s.Members {
			if grown[m.Name] > 0 && used(s, m.Name)+grown[m.Name] > m.Capacity.Memory+m.Capacity.Memory/2 {
				t.Fatalf("%s is overfilled", m.Name)
			}
		}
	})
}

func TestRestoreLeavesOutWhoIsHome(t *testing.T) {
	s := scheduler.Snapshot{Members: []scheduler.Member{member("a"), member("b")}, Instances: []scheduler.Instance{
		{Project: "default", Name: "x", Member: "a"}, {Project: "default", Name: "y", Member: "b"},
	}}
	moves, err := scheduler.Plan([]scheduler.Request{
		{Project: "default", Name: "x", Target: "a"}, {Project: "default", Name: "y", Target: "a"},
	}, s)
	if err != nil || len(moves) != 1 || moves[0].Name != "y" || moves[0].To != "a" {
		t.Errorf("moves %+v, %v; want only y to a", moves, err)
	}
}

func BenchmarkPlace(b *testing.B) {
	var s scheduler.Snapshot
	for i := range 100 {
		s.Members = append(s.Members, member(fmt.Sprintf("m%03d", i), func(m *scheduler.Member) { m.Capacity.Memory = 1024 * gib }))
	}
	for i := range 10000 {
		s.Instances = append(s.Instances, scheduler.Instance{
			Project: "default", Name: fmt.Sprint("i", i), Member: fmt.Sprintf("m%03d", i%100), Need: scheduler.DefaultNeed,
		})
	}
	for b.Loop() {
		if _, err := scheduler.Place(scheduler.Request{Project: "default", Name: "new", Need: scheduler.DefaultNeed}, s); err != nil {
			b.Fatal(err)
		}
	}
}
