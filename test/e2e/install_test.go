package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/test/lab"
)

// What `make install` puts below a directory is whole, and its units name the
// programs where they are.
func TestInstall(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t)
	bin := lab.Programs(t)
	if filepath.Base(bin) != "bin" {
		t.Skip("needs programs that `make build` made")
	}
	dest := t.TempDir()
	const prefix = "/opt/muster"
	install := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(bin), "scripts", "install"))
	install.Env = append(os.Environ(), "DESTDIR="+dest, "PREFIX="+prefix)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("scripts/install: %v\n%s", err, out)
	}
	at := func(name string) string { return filepath.Join(dest, prefix, name) }
	for name, want := range map[string]string{
		"lib/systemd/system/musterd.service":           "\nExecStart=" + prefix + "/bin/musterd ",
		"lib/systemd/system/musterd.socket":            "ListenStream=/var/lib/muster/unix.socket",
		"lib/systemd/system/muster-containers.service": "\nExecStop=" + prefix + "/bin/musterd shutdown",
		"lib/sysusers.d/muster.conf":                   "g muster",
		"share/bash-completion/completions/muster":     "__start_muster",
		"share/zsh/site-functions/_muster":             "#compdef muster",
		"share/fish/vendor_completions.d/musterd.fish": "musterd",
		"share/man/man1/muster-launch.1":               ".SH SYNOPSIS",
		"share/man/man1/musterd-waitready.1":           ".SH SYNOPSIS",
	} {
		text, err := os.ReadFile(at(name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v; want %q in it", name, err, want)
		}
	}
	for _, name := range []string{"muster", "musterd", "muster-shim"} {
		if out, err := exec.CommandContext(t.Context(), at("bin/"+name), "--help").CombinedOutput(); err != nil && name != "muster-shim" {
			t.Errorf("%s --help: %v\n%s", name, err, out)
		}
		info, err := os.Stat(at("bin/" + name))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v; want mode 0755", name, info, err)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze to check the units")
	}
	// Where the programs are here, since systemd-analyze looks for them.
	units := []string{"verify", "--man=no"}
	for _, name := range []string{"musterd.service", "musterd.socket", "muster-containers.service"} {
		text, err := os.ReadFile(at("lib/systemd/system/" + name))
		if err != nil {
			t.Fatal(err)
		}
		here := filepath.Join(dest, name)
		if err := os.WriteFile(here, []byte(strings.ReplaceAll(string(text), prefix+"/bin/", bin+"/")), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, here)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", units...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze %v: %v\n%s", units, err, out)
	}
}
