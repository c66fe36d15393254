package node

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"muster/node/runtime"
	"muster/state"
)

// Files that templates make belong to the instance's own root, with every driver,
// privileged or not, whether the file and its directory are there or not.
func TestTemplates(t *testing.T) {
	for _, driver := range drivers {
		for _, privileged := range []string{"false", "true"} {
			t.Run(fmt.Sprintf("%s, privileged %s", driver, privileged), func(t *testing.T) {
				n := newNode(t, driver)
				inst := newInstance(t, n, "c1", state.Config{"security.privileged": privileged, "volatile.apply_template": "create"})
				dir, err := n.VolumeDir(t.Context(), inst)
				if err != nil {
					t.Fatal(err)
				}
				files := map[string]string{
					"metadata.yaml": "architecture: x86_64\ncreation_date: 1\ntemplates:\n" +
						"  /new: {when: [create], template: t}\n  /deep/er/new: {when: [create], template: t}\n  /etc/old: {when: [create], template: t}\n",
					"templates/t": "{{ instance.name }}",
				}
				for name, content := range files {
					path := filepath.Join(dir, name)
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := n.Start(t.Context(), inst); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if _, err := n.Stop(t.Context(), inst, runtime.Stop{Force: true}); err != nil {
						t.Error(err)
					}
				}()
				pool, volume, err := n.volume(t.Context(), inst)
				if err != nil {
					t.Fatal(err)
				}
				mounted, err := pool.MountVolume(t.Context(), volume, n.storageIDs(inst))
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := pool.UnmountVolume(t.Context(), volume); err != nil {
						t.Error(err)
					}
				}()
				want := uint32(0)
				if ids := n.ids(inst); ids != nil {
					want = ids.Host
				}
				for _, name := range []string{"new", "deep/er/new", "deep/er", "etc/old"} {
					var stat syscall.Stat_t
					if err := syscall.Stat(filepath.Join(mounted.RootFS, name), &stat); err != nil {
						t.Errorf("%s: %v", name, err)
					} else if stat.Uid != want || stat.Gid != want {
						t.Errorf("%s belongs to %d:%d; want %d", name, stat.Uid, stat.Gid, want)
					}
				}
				if got, err := os.ReadFile(filepath.Join(mounted.RootFS, "new")); string(got) != "c1" {
					t.Errorf("/new has %q (%v); want c1", got, err)
				}
			})
		}
	}
}
