package disk

import "testing"

// Only disks that are known to be full make the leader refuse what needs room: voters that
// are away do not.
func TestScarce(t *testing.T) {
	for name, tc := range map[string]struct {
		fit, sick, all int // of the others
		using          bool
		want           bool
	}{
		"a server alone":                           {0, 0, 1, false, false},
		"a server alone that uses its reserve":     {0, 0, 1, true, true},
		"all three are well":                       {2, 0, 3, false, false},
		"both others are away":                     {0, 0, 3, false, false},
		"one is away, one not heard of":            {0, 0, 3, false, false},
		"one of the others is full":                {1, 1, 3, false, false},
		"both others are full":                     {0, 2, 3, false, true},
		"one is away and one is full":              {0, 1, 3, false, true},
		"this one is full, the others are well":    {2, 0, 3, true, false},
		"this one is full, and one of them is too": {1, 1, 3, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := New(Config{Voters: func() (int, int, int) { return tc.fit, tc.sick, tc.all }})
			w.using.Store(tc.using)
			if got := w.Scarce(); got != tc.want {
				t.Errorf("Scarce() = %v; want %v", got, tc.want)
			}
		})
	}
}

// A small file system is not low from the start: what the logs always use fits beside both
// reserves and Low.
func TestLowOnASmallFileSystem(t *testing.T) {
	for name, tc := range map[string]struct{ total, want int64 }{
		"tiny: no less than floor": {30 << 20, floor},
		"64 MB":                    {55 << 20, 11 << 20},
		"where it is the whole":    {160 << 20, Low},
		"large":                    {1 << 40, Low},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lowOf(tc.total); got != tc.want {
				t.Errorf("lowOf(%d) = %d; want %d", tc.total, got, tc.want)
			}
		})
	}
}
