package lxc_test

import (
	"errors"
	"strings"
	"testing"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// The system calls that are asked to be refused are, for init and for commands.
func TestSeccomp(t *testing.T) {
	r := open(t)
	for name, tc := range map[string]struct {
		policy runtime.Seccomp
		script string
		want   string
	}{
		"the default":    {runtime.Seccomp{}, "mkdir /tmp/a && echo made", "made\n"},
		"one more":       {runtime.Seccomp{Deny: []string{"mkdir", "mkdirat"}}, "mkdir /tmp/b || echo refused", "refused\n"},
		"none at all":    {runtime.Seccomp{NoDefault: true}, "grep -c 'Seccomp:.0' /proc/self/status", "1\n"},
		"no other width": {runtime.Seccomp{DenyCompat: true}, "echo runs", "runs\n"},
		"one's own": {
			runtime.Seccomp{Raw: "2\ndenylist\n[all]\nmkdir errno 1\nmkdirat errno 1\n"}, "mkdir /tmp/c || echo refused", "refused\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, "c1")
			s.Seccomp = tc.policy
			start(t, r, s)
			if _, out := runtimetest.Sh(t, r, "c1", "{ "+tc.script+"; } 2>/dev/null"); out != tc.want {
				t.Errorf("the container says %q; want %q", out, tc.want)
			}
			if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
				t.Fatal(err)
			}
		})
	}
	s := spec(t, "c1")
	s.Seccomp.Raw = "not a policy"
	if _, err := r.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), "Invalid version") {
		t.Errorf("a policy that is none: %v; want what liblxc says of it", err)
	}
	s.Seccomp = runtime.Seccomp{Deny: []string{"mkdir errno 0\nreboot"}}
	if _, err := r.Start(t.Context(), s); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a call that is a line: %v; want ErrInvalid", err)
	}
}

// A container may run containers: it can make a user namespace with proc and sys
// of its own.
func TestNesting(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	s.Nesting = true
	start(t, r, s)
	if code, out := runtimetest.Sh(t, r, "c1", "test -d /dev/.lxc/proc/1 && test -d /dev/.lxc/sys/kernel"); code != 0 {
		t.Errorf("no whole proc and sys are in sight: %s", out)
	}
}

// The hostname, environment, kernel settings and arguments of init are as given.
func TestInit(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	s.Hostname = "a-host.example"
	s.Environment = map[string]string{"NAME": "a value = with 'signs' # and more", "EMPTY": ""}
	s.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Init = []string{"/bin/sh", "-c", "echo \"$1\" > /tmp/argument; while true; do sleep 1000; done", "sh", "two  words"}
	start(t, r, s)
	runtimetest.Eventually(t, func() string {
		if _, out := runtimetest.Sh(t, r, "c1", "cat /tmp/argument"); out != "two  words\n" {
			return "init was given " + out
		}
		return ""
	})
	_, out := runtimetest.Sh(t, r, "c1", "cat /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward; tr '\\0' '\\n' < /proc/1/environ")
	for _, want := range []string{"a-host.example\n1\n", "\nNAME=a value = with 'signs' # and more\n", "\nEMPTY=\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the container says %q; want %q in it", out, want)
		}
	}
}
