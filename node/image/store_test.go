package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

func TestExportOpensWhatWasImported(t *testing.T) {
	type exported struct {
		Role Role
		Name string
		Data string
	}
	whole := compressed(t, tarOf(t, meta(), dir("rootfs")), XZ)
	metadata, rootfs := tarOf(t, meta()), compressed(t, tarOf(t, file("x")), Zstd)
	for name, tc := range map[string]struct {
		next func() (Part, error)
		want []exported
	}{
		"unified": {unified(whole), []exported{{RoleUnified, ".tar.xz", string(whole)}}},
		"split":   {split(metadata, rootfs), []exported{{RoleMetadata, ".tar", string(metadata)}, {RoleRootFS, ".tar.zst", string(rootfs)}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			info, err := importOf(t.Context(), s, tc.next)
			must(t, err)
			files, err := s.Export(info.Fingerprint)
			must(t, err)
			defer files.Close()
			must(t, s.Delete(t.Context(), info.Fingerprint)) // an open file stays readable
			var got []exported
			for _, f := range files {
				data, err := io.ReadAll(f)
				must(t, err)
				if int64(len(data)) != f.Size {
					t.Errorf("%s has %d bytes, and is said to have %d", f.Name, len(data), f.Size)
				}
				ending := strings.Replace(strings.TrimPrefix(f.Name, "meta-"), info.Fingerprint, "", 1)
				got = append(got, exported{f.Role, ending, string(data)})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Export (-want +got):\n%s", diff)
			}
			if s.Has(info.Fingerprint) {
				t.Error("the store has what was deleted")
			}
			wantNothingHeld(t, s)
		})
	}
}

func TestWhatIsNotHereIsNotFound(t *testing.T) {
	s := openStore(t)
	for _, fingerprint := range []string{strings.Repeat("0", 64), "", "..", "staging", "../../etc/passwd", strings.Repeat("A", 64)} {
		if s.Has(fingerprint) {
			t.Errorf("Has(%q) = true", fingerprint)
		}
		_, infoErr := s.Info(t.Context(), fingerprint)
		_, exportErr := s.Export(fingerprint)
		for what, err := range map[string]error{
			"Info": infoErr, "Export": exportErr, "Verify": s.Verify(t.Context(), fingerprint),
			"Unpack": s.Unpack(t.Context(), fingerprint, filepath.Join(t.TempDir(), "out"), nil),
		} {
			if !errors.Is(err, state.ErrNotFound) {
				t.Errorf("%s(%q) = %v; want not found", what, fingerprint, err)
			}
		}
		if err := s.Delete(t.Context(), fingerprint); err != nil {
			t.Errorf("Delete(%q) = %v; want a deletion that can be repeated", fingerprint, err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.cfg.Dir, stagingDir)); err != nil {
		t.Errorf("the staging directory: %v", err)
	}
}

// After a crash: what was on its way goes, what the cluster knows stays, what it
// misses is named.
func TestReconcile(t *testing.T) {
	at := filepath.Join(t.TempDir(), "images")
	crashed := openStore(t, func(c *Config) { c.Dir = at })
	importIt := func(s *Store, next func() (Part, error)) string {
		t.Helper()
		info, err := importOf(t.Context(), s, next)
		must(t, err)
		return info.Fingerprint
	}
	known := importIt(crashed, split(tarOf(t, meta()), tarOf(t, file("known"))))
	unrecorded := importIt(crashed, split(tarOf(t, meta()), tarOf(t, file("unrecorded"))))
	half := importIt(crashed, split(tarOf(t, meta()), tarOf(t, file("half"))))
	must(t, os.Remove(crashed.path(half)))
	st, err := crashed.newStage()
	must(t, err)
	f, err := st.create(RoleUnified)
	must(t, err)
	must(t, f.Close())
	must(t, os.WriteFile(filepath.Join(at, "README"), nil, 0o600))

	s := openStore(t, func(c *Config) { c.Dir = at })
	fresh := importIt(s, unified(tarOf(t, meta(), dir("rootfs"))))
	underWay, err := s.newStage()
	must(t, err)
	defer underWay.discard()

	left, err := s.Reconcile(t.Context(), []string{known, half})
	must(t, err)
	slices.Sort(left.Removed)
	want := Leftovers{Removed: []string{unrecorded, unrecorded + ".rootfs", half + ".rootfs", "staging/" + st.name}, Missing: []string{half}}
	slices.Sort(want.Removed)
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("Reconcile (-want +got):\n%s", diff)
	}
	names := held(t, s)
	wantNames := []string{known, known + ".rootfs", fresh, "README", "staging/" + underWay.name}
	slices.Sort(names)
	slices.Sort(wantNames)
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Errorf("the store holds (-want +got):\n%s", diff)
	}
	again, err := s.Reconcile(t.Context(), []string{known})
	if err != nil || len(again.Removed)+len(again.Missing) > 0 {
		t.Errorf("Reconcile again = %+v, %v; want nothing to do", again, err)
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no directory":    {},
		"negative bytes":  {Dir: t.TempDir(), MaxUnpacked: -1},
		"no end of bytes": {Dir: t.TempDir(), MaxUnpacked: 1 << 60},
		"a file":          {Dir: os.Args[0]},
	} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%s: Open succeeded", name)
		}
	}
}
