package cluster

import (
	"slices"
	"testing"
)

// The files of an image that is on its way are not removed for one of the same content that
// was deleted before.
func TestArrivals(t *testing.T) {
	var a arrivals
	var removed []string
	remove := func(fingerprint string) { removed = append(removed, fingerprint) }
	want := func(when string, fingerprints ...string) {
		t.Helper()
		if !slices.Equal(removed, fingerprints) {
			t.Errorf("%s removed are %q; want %q", when, removed, fingerprints)
		}
		removed = nil
	}
	a.unless("a", remove)
	want("when nothing comes", "a")
	fetched := a.begin("a", remove)
	a.unless("a", remove)
	a.unless("b", remove)
	want("while a comes", "b")
	uploaded := a.begin("", remove)
	fetched()
	want("while something comes that may be a")
	a.unless("c", remove)
	uploaded()
	slices.Sort(removed)
	want("when nothing comes any more", "a", "c")
	again := a.begin("a", remove)
	again()
	want("when a has come and nobody wants it gone")
}
