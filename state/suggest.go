package state

import (
	"slices"
	"strings"
)

// nearest returns the candidate that is fewest edits away from word, or "" when
// none is near enough to be what was meant. Ties go to the first in order. A
// candidate that ends in a dot stands for every key below it: the same number of
// the word's parts is compared with it, and the rest of the word is kept.
func nearest(word string, candidates []string) string {
	sorted := slices.Clone(candidates)
	slices.Sort(sorted)
	best, bestDistance := "", len(word)
	for _, candidate := range sorted {
		head, rest := word, ""
		if strings.HasSuffix(candidate, ".") {
			if rest = below(word, strings.Count(candidate, ".")); rest == "" {
				continue
			}
			head = strings.TrimSuffix(word, rest)
		}
		if d := distance(head, candidate); d < bestDistance && d <= len(head)/3+1 {
			best, bestDistance = candidate+rest, d
		}
	}
	return best
}

// below is the word without its first parts, which are closed by dots.
func below(word string, parts int) string {
	for range parts {
		_, rest, found := strings.Cut(word, ".")
		if !found {
			return ""
		}
		word = rest
	}
	return word
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

// maxSuggest bounds the words that a suggestion is looked for: nobody mistypes
// a whole page.
const maxSuggest = 128

// unknown is the error for a key that does not exist, with the one that was
// probably meant.
func unknown(what, key string, known []string) error {
	if len(key) > maxSuggest {
		return Errorf(ErrInvalid, "unknown %s %.40q…", what, key)
	}
	if meant := nearest(key, known); meant != "" {
		return Errorf(ErrInvalid, "unknown %s %q: did you mean %q?", what, key, meant)
	}
	return Errorf(ErrInvalid, "unknown %s %q", what, key)
}
