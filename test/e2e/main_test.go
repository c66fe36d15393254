// Package e2e drives real daemons through their API and looks at what comes of it:
// what users may send wrongly, and what a cluster does through any of its members.
//
// Tests that mostly wait run beside one another (t.Parallel); those that say how long
// something may take, or fill the machine, have it to themselves.
package e2e

import (
	"encoding/json"
	"testing"

	"muster/test/lab"
)

// decode reads an answer's metadata.
func decode[T any](t *testing.T, answer lab.Answer) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(answer.Metadata, &value); err != nil {
		t.Fatalf("%v: %s", err, answer.Metadata)
	}
	return value
}
