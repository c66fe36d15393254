// Package scheduler says which member an instance belongs on, and why.
//
// It never looks at a clock, a disk or a network and draws no lots but by the
// seed it is given: the same request and snapshot give the same decision.
package scheduler

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"muster/state"
)

// Resources are an instance's needs or a member's means.
type Resources = state.Resources

// Member is a member as the scheduler sees it.
type Member struct {
	Name string
	// Online is false for members that are offline, evacuated or blocked;
	// Status then says which, in a word.
	Online bool
	Status string
	// Scheduler is the member's scheduler.instance: "all" (or empty) takes any
	// instance, "group" only those that target one of its groups, "manual" only
	// those that name the member (LXD: "Clustering: member configuration").
	Scheduler     string
	Groups        []string
	Architectures []string
	Domain        string // failure domain; empty is one of its own
	Pools         []string
	Networks      []string
	Images        []string // fingerprints of images it has
	Capacity      Resources
}

// Instance is an instance that is placed already.
type Instance struct {
	Project, Name, Member string
	Need                  Resources
	// Config is expanded; only the keys LabelKey, AffinityKey and
	// AntiAffinityKey are read.
	Config state.Config
}

// The keys of an instance that attract it to others or keep it away. Each value
// is a list of labels with commas; labels count within a project. Both are
// wishes (scores), not conditions.
const (
	LabelKey        = "scheduler.labels"
	AffinityKey     = "scheduler.affinity"
	AntiAffinityKey = "scheduler.anti_affinity"
)

// Ratios say how many times over a member's means may be promised. Zero means
// the default: CPU 16, memory 1.5, disk 1.
type Ratios struct{ CPU, Memory, Disk float64 }

// Snapshot is all that a decision rests on.
type Snapshot struct {
	Members    []Member
	Instances  []Instance
	Overcommit Ratios
	Weights    Weights
}

// Request asks for a place.
type Request struct {
	Project, Name string
	// Target is a member's name, "@group", or empty for any.
	Target string
	// Architecture, Pools, Networks must be there; Image is better there.
	Architecture    string
	Pools, Networks []string
	Image           string
	Need            Resources
	Config          state.Config // expanded
	// Groups are those the project is restricted to
	// (restricted.cluster.groups); empty restricts nothing.
	Groups []string
	// Seed breaks ties: members that schedule at once use different ones.
	Seed uint64
}

// Verdict is what one member got.
type Verdict struct {
	Member string
	// Filter names the filter that refused it and Reason says why; both are
	// empty for a member that fits.
	Filter, Reason string
	// Scores are the weighted scores by name, Total their sum.
	Scores map[string]float64
	Total  float64
}

// Decision is where to, and why.
type Decision struct {
	Member   string
	Verdicts []Verdict // by member name
}

// Place chooses a member. When none fits, the error says why for each:
// state.ErrUnavailable when the status alone was in the way of all that were
// refused, state.ErrConflict otherwise. The decision explains itself in either
// case. That filters come before weighted scores is the way of Kubernetes'
// scheduling framework and of OpenStack Nova's filter scheduler (their public
// documentation).
func Place(r Request, s Snapshot) (Decision, error) { return newBoard(s).place(r) }

// board is a snapshot added up.
type board struct {
	members []Member
	ratios  Ratios
	weights Weights
	used    map[string]Resources
	count   map[string]int
	most    int
	domains map[string]int            // instances of a project by domain: project\x00domain
	labels  map[string]map[string]int // project\x00label, then member
}

func newBoard(s Snapshot) *board {
	b := &board{
		members: slices.SortedFunc(slices.Values(s.Members), func(a, b Member) int { return cmp.Compare(a.Name, b.Name) }),
		ratios:  s.Overcommit.filled(),
		weights: cmp.Or(s.Weights, DefaultWeights), used: map[string]Resources{}, count: map[string]int{},
		domains: map[string]int{}, labels: map[string]map[string]int{},
	}
	for _, i := range s.Instances {
		b.count[i.Member]++
		b.book(i, 1)
		b.most = max(b.most, b.count[i.Member])
	}
	domains := map[string]string{}
	for _, m := range b.members {
		domains[m.Name] = m.domain()
	}
	for _, i := range s.Instances {
		b.domains[i.Project+"\x00"+domains[i.Member]]++
	}
	return b
}

func (m Member) domain() string { return cmp.Or(m.Domain, "\x00"+m.Name) }

// book adds an instance to its member's use, or takes it away with sign -1.
func (b *board) book(i Instance, sign int64) {
	used := b.used[i.Member]
	used.CPU += sign * i.Need.CPU
	used.Memory += sign * i.Need.Memory
	used.Disk += sign * i.Need.Disk
	b.used[i.Member] = used
	for _, label := range list(i.Config[LabelKey]) {
		key := i.Project + "\x00" + label
		if b.labels[key] == nil {
			b.labels[key] = map[string]int{}
		}
		b.labels[key][i.Member] += int(sign)
	}
}

func list(value string) []string {
	if value == "" {
		return nil
	}
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

func (b *board) place(r Request) (Decision, error) {
	var d Decision
	best := -1
	for i := range b.members {
		m := &b.members[i]
		v := Verdict{Member: m.Name}
		v.Filter, v.Reason = b.refuse(r, m)
		if v.Filter == "" {
			v.Scores, v.Total = b.rate(r, m)
			if best < 0 || better(r, v, d.Verdicts[best]) {
				best = len(d.Verdicts)
			}
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	if best < 0 {
		return d, nowhere(r, d.Verdicts)
	}
	d.Member = d.Verdicts[best].Member
	return d, nil
}

// better prefers the higher total; equal ones go by a hash of the seed.
func better(r Request, a, b Verdict) bool {
	if diff := a.Total - b.Total; diff > 1e-9 || diff < -1e-9 {
		return diff > 0
	}
	return cmp.Or(cmp.Compare(lot(r, a.Member), lot(r, b.Member)), cmp.Compare(b.Member, a.Member)) > 0
}

func lot(r Request, member string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatUint(r.Seed, 10) + "\x00" + r.Project + "\x00" + r.Name + "\x00" + member))
	// FNV's high bits hardly depend on the last bytes; mix them (the finalizer
	// of MurmurHash3, public domain).
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func nowhere(r Request, verdicts []Verdict) error {
	what := "the instance" // whose name is made up when it is created
	if r.Name != "" {
		what = "instance " + strconv.Quote(r.Name)
	}
	if len(verdicts) == 0 {
		return state.Errorf(state.ErrUnavailable, "no member can host %s: the cluster has no members", what)
	}
	// Members the request ruled out do not count: waiting helps when all
	// others are merely away.
	kind, away := state.ErrConflict, false
	var reasons []string
	for _, v := range verdicts {
		away = away || v.Filter == "status"
		reasons = append(reasons, v.Member+" "+v.Reason)
	}
	if away && !slices.ContainsFunc(verdicts, func(v Verdict) bool { return v.Filter != "status" && v.Filter != "target" }) {
		kind = state.ErrUnavailable
	}
	return state.Errorf(kind, "no member can host %s: %s", what, strings.Join(reasons, "; "))
}
