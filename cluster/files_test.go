package cluster

import (
	"path"
	"strings"
	"testing"
)

// Whatever a client sends as a path names something inside of the instance.
func FuzzFilePaths(f *testing.F) {
	for _, seed := range []string{"", "/", "etc/passwd", "/../../etc", "..", "a/../../b", "//x//", "./.", "a\x00b", "…/..", strings.Repeat("../", 1000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		inside := absolute(name)
		if !path.IsAbs(inside) || path.Clean(inside) != inside {
			t.Fatalf("absolute(%q) = %q; want a clean absolute path", name, inside)
		}
		for part := range strings.SplitSeq(inside, "/") {
			if part == ".." {
				t.Fatalf("absolute(%q) = %q climbs", name, inside)
			}
		}
		if again := absolute(inside); again != inside {
			t.Fatalf("absolute(%q) = %q, and of that %q", name, inside, again)
		}
	})
}
