package store

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// What breaks dqlite, or sqlc's output for it (STYLE part 4), does not come back.
func TestNoTraps(t *testing.T) {
	comment := regexp.MustCompile(`(?m)--.*$`)
	traps := map[string]*regexp.Regexp{
		"RETURNING loses the row and ends the process":                    regexp.MustCompile(`(?i)\breturning\b`),
		"json_each and json_tree do not exist":                            regexp.MustCompile(`(?i)\bjson_(each|tree)\b`),
		"sqlc.slice before another parameter binds the wrong one":         regexp.MustCompile(`(?is)sqlc\.slice\([^;]*\)[^;]*(\?|sqlc\.n?arg\()`),
		"sqlc.narg without CAST has no type":                              regexp.MustCompile(`(?i)(^|[^(]|[^Tt]\()sqlc\.narg`),
		"an expression over a DATETIME column loses its type":             regexp.MustCompile(`(?i)\b(max|min|ifnull|coalesce)\s*\(\s*\w*\.?\w+_at\b`),
		"dqlite's SQLite may be 3.35: no STRICT tables, no RIGHT JOIN":    regexp.MustCompile(`(?i)\)\s*STRICT\b|\bRIGHT JOIN\b|\bFULL JOIN\b`),
		"a migration drops or renames what the previous release may read": regexp.MustCompile(`(?i)\b(DROP|RENAME)\b`),
	}
	var seen int
	for _, pattern := range []string{"schema/*.sql", "query/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			sql := comment.ReplaceAll(raw, nil)
			for trap, pattern := range traps {
				if hit := pattern.Find(sql); hit != nil {
					t.Errorf("%s: %q: %s", file, hit, trap)
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d files were looked at", seen)
	}
}
