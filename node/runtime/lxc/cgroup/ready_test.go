package cgroup

import (
	"os"
	"testing"
)

// Getting ready changes nothing: the process stays in its groups.
func TestReady(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("moving a process between groups needs root")
	}
	host, err := Detect()
	if err != nil {
		t.Skip(err)
	}
	read := func() string {
		text, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := read()
	if err := host.Ready(); err != nil {
		t.Error(err)
	}
	if after := read(); after != before {
		t.Errorf("the groups were\n%s and are\n%s", before, after)
	}
}
