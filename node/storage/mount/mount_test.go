package mount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		line string
		want Entry
	}{
		"a bind mount with a space": {
			`52 45 254:0 /a\040b /pools/x\134y rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard`,
			Entry{ID: 52, Parent: 45, Root: "/a b", Path: `/pools/x\y`, Options: "rw,relatime", FSType: "ext4", Source: "/dev/vda", Super: "rw,discard"},
		},
		"no optional fields, empty source": {
			`1 2 0:3 / / rw - tmpfs none rw`,
			Entry{ID: 1, Parent: 2, Root: "/", Path: "/", Options: "rw", FSType: "tmpfs", Source: "none", Super: "rw"},
		},
	} {
		got, err := parse(tc.line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, bad := range []string{"", "a b c", "x 1 0:1 / / rw - ext4 /dev/x rw", "1 2 0:3 / / rw"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q was taken for %+v", bad, got)
		}
	}
}

func TestUnmountTakesDownAll(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	ctx := t.Context()
	src, at := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		if _, err := Unmount(context.Background(), at); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		if err := Bind(src, at, nil, Flags{}); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := At(at); err != nil || !there {
		t.Fatalf("At = %v, %v", there, err)
	}
	lazy, err := Unmount(ctx, at)
	if err != nil || lazy {
		t.Errorf("Unmount = %v, %v", lazy, err)
	}
	if table, err := Table(at); err != nil || len(table) > 0 {
		t.Errorf("still mounted: %v (%v)", table, err)
	}
	if there, err := At(filepath.Join(at, "none")); err != nil || there {
		t.Errorf("At of nothing = %v, %v", there, err)
	}
}

// A busy mount is waited for, and detached only in the end.
func TestUnmountOfABusyMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	src, at := t.TempDir(), t.TempDir()
	if err := Bind(src, at, nil, Flags{}); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(filepath.Join(at, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := Release(at); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Release = %v, want EBUSY", err)
	}
	lazy, err := Unmount(t.Context(), at)
	if err != nil || !lazy {
		t.Errorf("Unmount = %v, %v; want it detached", lazy, err)
	}
	if there, err := At(at); err != nil || there {
		t.Errorf("At = %v, %v", there, err)
	}
}

func TestReadOnlyAndMappedBind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	src, at := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		if _, err := Unmount(context.Background(), at); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(src, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(src, "file"), 5, 6); err != nil {
		t.Fatal(err)
	}
	var namespaces Namespaces
	defer namespaces.Close()
	ns, err := namespaces.For([]Mapping{{0, 1000, 10}}, []Mapping{{0, 2000, 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := Bind(src, at, ns, Flags{ReadOnly: true, NoDev: true}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(at, "file"), &st); err != nil || st.Uid != 1005 || st.Gid != 2006 {
		t.Errorf("the file belongs to %d:%d (%v), want 1005:2006", st.Uid, st.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(at, "other"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing = %v, want EROFS", err)
	}
}
