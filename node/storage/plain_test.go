package storage_test

import (
	"errors"
	"strings"
	"testing"

	"muster/node/storage"
	"muster/state"
)

// A volume that was made plain has the files it had, and is snapshotted, restored, copied
// and deleted like any other.
func TestMakePlain(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, p)
		c1, c2 := storage.Instance("c1"), storage.Instance("c2")
		noError(t, p.CreateFromImage(ctx, c1, image))
		inMount(t, p, c1, ids, "echo mine > /etc/passwd; rm -r /usr/share/doc; ln /etc/shadow /etc/shadow2; chown 5:6 /tmp")
		noError(t, p.Snapshot(ctx, c1.At("before")))
		want := viewOf(t, p, c1)

		_, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		if err := p.MakePlain(ctx, c1); (p.DriverName() == "overlay") != errors.Is(err, state.ErrConflict) {
			t.Errorf("while it is mounted: %v; want ErrConflict for an overlay alone", err)
		}
		noError(t, p.UnmountVolume(ctx, c1))

		noError(t, p.MakePlain(ctx, c1))
		noError(t, p.MakePlain(ctx, c1)) // again is no harm
		if p.Stacks(c1) {
			t.Error("it is still an overlay")
		}
		same(t, "made plain", clocklessAll(viewOf(t, p, c1)), clocklessAll(want))
		noError(t, p.Snapshot(ctx, c1.At("plain")))
		inMount(t, p, c1, ids, "echo later > /etc/passwd")
		noError(t, p.Copy(ctx, c2, p, c1, []string{"before", "plain"}))
		noError(t, p.Restore(ctx, c1.At("plain")))
		same(t, "restored", clocklessAll(viewOf(t, p, c1)), clocklessAll(want))
		if got := strings.TrimSpace(inMount(t, p, c2, ids, "cat /etc/passwd")); got != "later" {
			t.Errorf("the copy has %q", got)
		}
		// A snapshot from before is an overlay, and so is what is made of it.
		noError(t, p.Restore(ctx, c1.At("before")))
		if got := p.Stacks(c1); got != (p.DriverName() == "overlay") {
			t.Errorf("restored to what it was before, it is an overlay: %v", got)
		}
		noError(t, p.MakePlain(ctx, c1))
		same(t, "made plain again", clocklessAll(viewOf(t, p, c1)), clocklessAll(want))
		noError(t, p.DeleteVolume(ctx, c1))
		noError(t, p.DeleteVolume(ctx, c2))
		noError(t, p.DeleteImage(ctx, image))
	})
}
