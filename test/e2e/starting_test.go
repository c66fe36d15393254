package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/test/lab"
)

// Who forgets to be root, or to start a daemon, is told so at once.
func TestStartingTheWrongWay(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t)
	musterd, err := os.Open(filepath.Join(lab.Programs(t), "musterd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = musterd.Close() }) // after the subtests, which run side by side
	const nobody = 65534
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		dir  string
		user uint32
		want string
	}{
		"a daemon without root":          {nil, filepath.Join(closed, "d"), nobody, "run it as root"},
		"a witness in a closed place":    {[]string{"--witness"}, filepath.Join(closed, "d"), nobody, "run this as root, or set MUSTER_DIR"},
		"waiting in a closed place":      {[]string{"waitready"}, closed, nobody, "only root and the group"},
		"waiting for what nobody starts": {[]string{"waitready"}, filepath.Join(closed, "none"), 0, "start one as root"},
		"no patience":                    {[]string{"waitready", "--timeout", "1"}, filepath.Join(closed, "none"), 0, "not ready after 1 s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// As an open file: the other user may not be able to reach its name.
			cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", tc.args...)
			cmd.ExtraFiles = []*os.File{musterd}
			cmd.Dir, cmd.Env = "/", append(os.Environ(), "MUSTER_DIR="+tc.dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.user, Gid: tc.user}}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tc.want) {
				t.Errorf("musterd %v as user %d: %v\n%s\nwant a failure and %q", tc.args, tc.user, err, out, tc.want)
			}
		})
	}
}
