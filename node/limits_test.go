package node

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"testing"

	"muster/state"
)

// Of the processors that limits.cpu names an instance gets those that the member has, with
// a warning about the others; without any it can't start.
func TestProcessorsThatAreNotThere(t *testing.T) {
	n := newNode(t, "dir")
	count := goruntime.NumCPU()
	all := state.FormatCPUSet(func() (cpus []int) {
		for i := range count {
			cpus = append(cpus, i)
		}
		return cpus
	}())
	for value, want := range map[string]string{
		fmt.Sprintf("0-%d", count+1):             all,
		fmt.Sprintf("0-0,%d-%d", count, count+7): "0",
		"0-0":                                    "0",
	} {
		config := state.Config{"limits.cpu": value}
		limits, err := n.limits(config)
		if err != nil || limits.CPU.Set != want {
			t.Errorf("limits.cpu %s: processors %q (%v); want %q", value, limits.CPU.Set, err, want)
		}
		warnings := n.Warnings(t.Context(), Instance{Name: "c1", Config: config})
		if warned := len(warnings) == 1 && strings.Contains(warnings[0], value); warned != (value != "0-0") {
			t.Errorf("limits.cpu %s: warnings %q", value, warnings)
		}
	}
	if got := n.Warnings(t.Context(), Instance{Config: state.Config{"limits.cpu": fmt.Sprint(count + 1)}}); len(got) != 1 {
		t.Errorf("more processors than there are: warnings %q; want one", got)
	}
	_, err := n.limits(state.Config{"limits.cpu": fmt.Sprintf("%d-%d", count, count+1)})
	if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "none of these processors (it has "+all+")") {
		t.Errorf("none of them: %v; want ErrConflict that says which there are", err)
	}
}
