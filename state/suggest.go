package state

import "slices"

// nearest returns the candidate that is fewest edits away from word, or "" when
// none is near enough to be what was meant. Ties go to the first in order.
func nearest(word string, candidates []string) string {
	sorted := slices.Clone(candidates)
	slices.Sort(sorted)
	best, bestDistance := "", len(word)/3+2
	for _, candidate := range sorted {
		if d := distance(word, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is the number of single-character edits between two words
// (Levenshtein, 1966), by the usual two rows.
func distance(a, b string) int {
	previous := make([]int, len(b)+1)
	current := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		current[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			current[j+1] = min(previous[j+1]+1, current[j]+1, previous[j]+cost)
		}
		previous, current = current, previous
	}
	return previous[len(b)]
}

// unknown is the error for a key that does not exist, with the one that was
// probably meant.
func unknown(what, key string, known []string) error {
	if meant := nearest(key, known); meant != "" {
		return Errorf(ErrInvalid, "unknown %s %q: did you mean %q?", what, key, meant)
	}
	return Errorf(ErrInvalid, "unknown %s %q", what, key)
}
