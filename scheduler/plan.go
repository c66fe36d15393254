package scheduler

import (
	"cmp"
	"slices"

	"muster/state"
)

// Move is one instance with its new home.
type Move struct {
	Project, Name, From, To string
	Decision                Decision
}

// Plan finds a destination for each instance of the requests, all or none: an
// instance moves once, nothing else moves, and no member is overfilled on the
// way. The largest are placed first (first fit decreasing, Johnson 1973). An
// instance that is in the snapshot leaves room behind only after all moves, so
// the order in which they are carried out does not matter. One that is already
// where its request's Target names is left out.
func Plan(requests []Request, s Snapshot) ([]Move, error) {
	b := newBoard(s)
	at := map[[2]string]string{}
	for _, i := range s.Instances {
		at[[2]string{i.Project, i.Name}] = i.Member
	}
	order := slices.SortedStableFunc(slices.Values(requests), func(a, c Request) int {
		return cmp.Or(
			cmp.Compare(c.Need.Memory, a.Need.Memory), cmp.Compare(c.Need.CPU, a.Need.CPU), cmp.Compare(c.Need.Disk, a.Need.Disk),
			cmp.Compare(a.Project, c.Project), cmp.Compare(a.Name, c.Name))
	})
	var moves []Move
	seen := map[[2]string]bool{}
	for _, r := range order {
		key := [2]string{r.Project, r.Name}
		if seen[key] {
			return nil, state.Errorf(state.ErrInvalid, "instance %q is to be moved twice: name it once", r.Name)
		}
		seen[key] = true
		from := at[key]
		if from != "" && r.Target == from {
			continue
		}
		d, err := b.except(r, from)
		if err != nil {
			return nil, err
		}
		i := Instance{r.Project, r.Name, d.Member, r.Need, r.Config}
		b.book(i, 1)
		b.count[d.Member]++
		b.most = max(b.most, b.count[d.Member])
		for _, m := range b.members {
			if m.Name == d.Member {
				b.domains[r.Project+"\x00"+m.domain()]++
			}
		}
		moves = append(moves, Move{r.Project, r.Name, from, d.Member, d})
	}
	return moves, nil
}

// except places r anywhere but where it is.
func (b *board) except(r Request, from string) (Decision, error) {
	for i := range b.members {
		if m := &b.members[i]; m.Name == from && m.Online {
			m.Online, m.Status = false, "where it is already"
			defer func() { m.Online, m.Status = true, "" }()
		}
	}
	return b.place(r)
}
