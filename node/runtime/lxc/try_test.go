package lxc_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"muster/node/runtime"
	"muster/state"
)

// A configuration that liblxc would refuse at the start is refused by a trial, and a trial
// leaves nothing, whether the container runs or not.
func TestTry(t *testing.T) {
	r := open(t)
	for _, runs := range []bool{false, true} {
		s := spec(t, "c1")
		if runs {
			start(t, r, s)
		}
		for name, tc := range map[string]struct {
			change func(*runtime.Spec)
			want   string // empty: it would start
		}{
			"nothing special":                 {func(*runtime.Spec) {}, ""},
			"a setting of its own network":    {func(s *runtime.Spec) { s.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} }, ""},
			"a setting of the whole machine":  {func(s *runtime.Spec) { s.Sysctls = map[string]string{"kernel.panic": "5"} }, "sysctl"},
			"a setting that there is not":     {func(s *runtime.Spec) { s.Sysctls = map[string]string{"net.ipv4.nonsense": "5"} }, "sysctl"},
			"a limit that the kernel takes":   {func(s *runtime.Spec) { s.Limits.Kernel = map[string]string{"nofile": "1000:2000"} }, ""},
			"a soft limit above the hard one": {func(s *runtime.Spec) { s.Limits.Kernel = map[string]string{"nofile": "2000:1000"} }, "limit"},
			"no line of a configuration":      {func(s *runtime.Spec) { s.RawLXC = "nonsense" }, `"nonsense"`},
			"a value that the kernel refuses": {func(s *runtime.Spec) { s.RawLXC = "lxc.cgroup2.pids.max = many\nlxc.cgroup.pids.max = many" }, "pids.max"},
			"a mount of what is not there":    {func(s *runtime.Spec) { s.RawLXC = "lxc.mount.entry = /nowhere mnt none bind 0 0" }, "/nowhere"},
			"a mount that may be missing":     {func(s *runtime.Spec) { s.RawLXC = "lxc.mount.entry = /nowhere mnt none bind,optional 0 0" }, ""},
			"an interface that there is not":  {func(s *runtime.Spec) { s.RawLXC = "lxc.net.7.type = phys\nlxc.net.7.link = nowhere0" }, "nowhere0"},
			"a hook, which is not run":        {func(s *runtime.Spec) { s.RawLXC = "lxc.hook.pre-start = /bin/false" }, ""},
		} {
			t.Run(name, func(t *testing.T) {
				changed := s
				tc.change(&changed)
				err := r.Try(t.Context(), changed)
				switch {
				case tc.want == "" && err != nil:
					t.Errorf("Try: %v; want it to go well", err)
				case tc.want != "" && (!errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("Try: %v; want ErrInvalid with %q", err, tc.want)
				}
			})
		}
		list, err := r.List(t.Context())
		if err != nil || (len(list) == 1) != runs {
			t.Errorf("after the trials %d containers run (%v); want the container itself: %v", len(list), err, runs)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(r.LogFile("c1", "lxc.log"))), "*.try")); len(left) > 0 {
			t.Errorf("a trial left %v", left)
		}
	}
}
