package lxc

import (
	goruntime "runtime"
	"strings"

	"muster/node/runtime"
)

// deniedByDefault are system calls that act on the whole machine. In an
// unprivileged container the kernel refuses most of them anyway.
var deniedByDefault = []string{
	"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
	"open_by_handle_at", "swapon", "swapoff", "acct", "lookup_dcookie",
}

// compatCalls are those that only 32-bit programs make, and hardly any gets far
// without. liblxc applies a rule for another architecture to the machine's own
// too where that has the call, so the policy can't name the rest (seen with
// 5.0.2).
var compatCalls = []string{
	"mmap2", "fstat64", "stat64", "lstat64", "fstatat64", "fcntl64", "_llseek", "_newselect", "ugetrlimit",
	"getuid32", "getgid32", "geteuid32", "getegid32", "sigaction", "sigprocmask", "sigreturn", "waitpid", "socketcall",
	"truncate64", "ftruncate64", "sendfile64", "clock_gettime64", "futex_time64", "ppoll_time64", "rt_sigtimedwait_time64",
}

// compatArchitectures are, by the processor's own, the others it can run, in
// liblxc's words.
var compatArchitectures = map[string]string{"amd64": "x86", "arm64": "arm"}

// seccompPolicy is the container's policy in liblxc's format, version 2; empty
// means none.
func seccompPolicy(spec runtime.Spec) string {
	s := spec.Seccomp
	if s.Raw != "" {
		return s.Raw
	}
	if len(s.Allow) > 0 {
		return "2\nallowlist\n[all]\n" + strings.Join(s.Allow, "\n") + "\n"
	}
	var calls []string
	if !s.NoDefault {
		calls = append(calls, deniedByDefault...)
	}
	calls = append(calls, s.Deny...)
	if len(calls) == 0 && !s.DenyCompat {
		return ""
	}
	var b strings.Builder
	b.WriteString("2\ndenylist\n")
	if !s.NoDefault {
		// A forced unmount of a network file system can hang others on the host.
		b.WriteString("reject_force_umount\n")
	}
	b.WriteString("[all]\n")
	for _, call := range calls {
		b.WriteString(call + " errno 1\n")
	}
	if arch := compatArchitectures[goruntime.GOARCH]; s.DenyCompat && arch != "" {
		b.WriteString("[" + arch + "]\n")
		for _, call := range compatCalls {
			b.WriteString(call + " errno 38\n")
		}
	}
	return b.String()
}
