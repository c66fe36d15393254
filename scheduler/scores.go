package scheduler

// Weights say how much each score counts; scores are from 0 to 1.
type Weights struct{ Balance, Domains, Affinity, AntiAffinity, Image, Count float64 }

// DefaultWeights are used when a snapshot has none. Who asked to be near or far
// gets it before balance; an image that is there saves one transfer and
// decides only between members that are about equal.
var DefaultWeights = Weights{Balance: 3, Domains: 0.5, Affinity: 4, AntiAffinity: 4, Image: 0.1, Count: 1}

// rate gives a fitting member its scores. Balance is the mean share left after
// placing (Kubernetes' LeastAllocated), domains and count favour whoever has
// fewest (its topology spread).
func (b *board) rate(r Request, m *Member) (map[string]float64, float64) {
	used, w := b.used[m.Name], b.weights
	left, kinds := 0.0, 0.0
	share := func(used, need, limit int64) {
		if limit > 0 {
			left += max(0, 1-(float64(used)+float64(need))/float64(limit))
			kinds++
		}
	}
	share(used.CPU, r.Need.CPU, over(m.Capacity.CPU, b.ratios.CPU))
	share(used.Memory, r.Need.Memory, over(m.Capacity.Memory, b.ratios.Memory))
	share(used.Disk, r.Need.Disk, over(m.Capacity.Disk, b.ratios.Disk))
	scores := map[string]float64{
		"balance": w.Balance * left / max(kinds, 1),
		"domains": w.Domains / float64(1+b.domains[r.Project+"\x00"+m.domain()]),
		"count":   w.Count * (1 - float64(b.count[m.Name])/float64(b.most+1)),
	}
	if near := list(r.Config[AffinityKey]); len(near) > 0 {
		scores["affinity"] = w.Affinity * b.near(r.Project, near, m.Name)
	}
	if far := list(r.Config[AntiAffinityKey]); len(far) > 0 {
		scores["anti_affinity"] = w.AntiAffinity * (1 - b.near(r.Project, far, m.Name))
	}
	if r.Image != "" {
		for _, image := range m.Images {
			if image == r.Image {
				scores["image"] = w.Image
			}
		}
	}
	// In a fixed order: a sum of floats depends on it.
	total := 0.0
	for _, name := range []string{"balance", "domains", "count", "affinity", "anti_affinity", "image"} {
		total += scores[name]
	}
	return scores, total
}

// near is which share of the instances with one of the labels the member hosts.
func (b *board) near(project string, labels []string, member string) float64 {
	here, all := 0, 0
	for _, label := range labels {
		for name, n := range b.labels[project+"\x00"+label] {
			all += n
			if name == member {
				here += n
			}
		}
	}
	if all == 0 {
		return 0
	}
	return float64(here) / float64(all)
}
