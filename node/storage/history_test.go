package storage_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/node/storage"
)

var (
	seed   = flag.Uint64("seed", 0, "run the random history with this seed")
	rounds = flag.Int("histories", 1, "how many random histories to run")
)

// Two pools live through the same random history: containers that write,
// rename and remove, snapshots, restores, copies, other id maps. The plain
// directory is the model; overlay, whose layers pile up and are merged
// meanwhile, and btrfs must never differ from it.
func TestRandomHistory(t *testing.T) {
	needsRoot(t)
	for _, driver := range []string{"overlay", "btrfs"} {
		for i := range *rounds {
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano()) + uint64(i)
			}
			t.Run(fmt.Sprintf("%s with seed %d", driver, s), func(t *testing.T) {
				(&history{
					rand: rand.New(rand.NewPCG(s, 1)), model: newPool(t, "dir"), tested: newPool(t, driver),
					volumes: map[string][]string{},
				}).run(t, 40)
			})
		}
	}
}

type history struct {
	rand          *rand.Rand
	model, tested *storage.Pool
	volumes       map[string][]string // with the snapshots of each
	made          int
	log           []string
}

func (h *history) pick(from []string) string { return from[h.rand.IntN(len(from))] }

// both does the same to both pools; they must agree whether it works.
func (h *history) both(t *testing.T, what string, do func(p *storage.Pool) error) {
	t.Helper()
	h.log = append(h.log, what)
	a, b := do(h.model), do(h.tested)
	if a != nil || b != nil {
		t.Fatalf("%s: the model says %v, the tested pool %v\n%s", what, a, b, strings.Join(h.log, "\n"))
	}
}

func (h *history) run(t *testing.T, steps int) {
	ctx := t.Context()
	h.both(t, "image", func(p *storage.Pool) error {
		withZoo(t, p)
		return nil
	})
	h.create(t)
	for range steps {
		name := h.pick(slices.Sorted(maps.Keys(h.volumes)))
		vol := storage.Instance(name)
		snapshots := h.volumes[name]
		switch n := h.rand.IntN(20); {
		case n < 9:
			h.write(t, vol)
			if h.rand.IntN(3) > 0 {
				h.snapshot(t, vol)
			}
		case n < 12:
			h.snapshot(t, vol)
		case n < 15 && len(snapshots) > 0:
			s := h.pick(snapshots)
			h.both(t, "delete "+name+"/"+s, func(p *storage.Pool) error { return p.DeleteVolume(ctx, vol.At(s)) })
			h.volumes[name] = slices.DeleteFunc(snapshots, func(x string) bool { return x == s })
		case n < 17 && len(snapshots) > 0:
			s := h.pick(snapshots)
			h.both(t, "restore "+name+"/"+s, func(p *storage.Pool) error { return p.Restore(ctx, vol.At(s)) })
		case n < 18 && len(h.volumes) < 3:
			to := h.name("c")
			h.both(t, fmt.Sprintf("copy %s with %v to %s", name, snapshots, to), func(p *storage.Pool) error {
				return p.Copy(ctx, storage.Instance(to), p, vol, snapshots)
			})
			h.volumes[to] = slices.Clone(snapshots)
		case n < 19 && len(h.volumes) > 1:
			h.both(t, "delete "+name, func(p *storage.Pool) error { return p.DeleteVolume(ctx, vol) })
			delete(h.volumes, name)
		default:
			h.create(t)
		}
		h.compare(t)
	}
	for name := range h.volumes {
		h.both(t, "delete "+name, func(p *storage.Pool) error { return p.DeleteVolume(ctx, storage.Instance(name)) })
	}
	nothingLeft(t, h.tested)
}

func (h *history) name(prefix string) string {
	h.made++
	return fmt.Sprintf("%s%d", prefix, h.made)
}

func (h *history) create(t *testing.T) {
	if len(h.volumes) >= 3 {
		return
	}
	name := h.name("c")
	h.both(t, "create "+name, func(p *storage.Pool) error {
		return p.CreateFromImage(t.Context(), storage.Instance(name), fingerprint(1))
	})
	h.volumes[name] = nil
}

func (h *history) snapshot(t *testing.T, vol storage.Volume) {
	s := h.name("s")
	h.both(t, "snapshot "+vol.Name+"/"+s, func(p *storage.Pool) error { return p.Snapshot(t.Context(), vol.At(s)) })
	h.volumes[vol.Name] = append(h.volumes[vol.Name], s)
}

// write lets a container change the volume, sometimes with a snapshot while it
// runs, sometimes as another root.
func (h *history) write(t *testing.T, vol storage.Volume) {
	m := ids
	switch h.rand.IntN(8) {
	case 0:
		m = storage.Shift(7_000_000, 65536)
	case 1:
		m = nil
	}
	script, later := h.script(), h.script()
	running := h.rand.IntN(4) == 0
	s := h.name("s")
	h.both(t, fmt.Sprintf("in %s (%v): %s", vol, m, script), func(p *storage.Pool) error {
		mounted, err := p.MountVolume(t.Context(), vol, m)
		if err != nil {
			return err
		}
		container(t, mounted.RootFS, m, script)
		if running {
			if err := p.Snapshot(t.Context(), vol.At(s)); err != nil {
				return err
			}
			container(t, mounted.RootFS, m, later)
		}
		return p.UnmountVolume(t.Context(), vol)
	})
	if running {
		h.log = append(h.log, "  with snapshot "+s+" while running, then: "+later)
		h.volumes[vol.Name] = append(h.volumes[vol.Name], s)
	}
}

// script makes a script of random commands on few names, so that they meet.
func (h *history) script() string {
	path := func() string {
		p := ""
		for range 1 + h.rand.IntN(3) {
			p += "/" + h.pick([]string{"usr", "share", "doc", "home", "ann", "a", "b"})
		}
		return p
	}
	var commands []string
	for range 1 + h.rand.IntN(5) {
		var c string
		switch h.rand.IntN(9) {
		case 0, 1:
			c = fmt.Sprintf("mkdir -p %s; echo %d > %s/f", path(), h.rand.IntN(100), path())
		case 2, 3, 4:
			c = fmt.Sprintf("mv %s %s", path(), path())
		case 5:
			c = "rm -rf " + path()
		case 6:
			c = fmt.Sprintf("chown %d:%d %s", h.rand.IntN(9), h.rand.IntN(9), path())
		case 7:
			c = fmt.Sprintf("echo %d > %s", h.rand.IntN(100), path())
		case 8:
			c = fmt.Sprintf("ln -s x %s; mkfifo %s/p; chmod 7%d0 %s", path(), path(), h.rand.IntN(8), path())
		}
		commands = append(commands, "{ "+c+"; } 2>/dev/null || true")
	}
	return strings.Join(commands, "\n")
}

// compare looks at everything there is.
func (h *history) compare(t *testing.T) {
	t.Helper()
	for name, snapshots := range h.volumes {
		vol := storage.Instance(name)
		for _, v := range append([]storage.Volume{vol}, at(vol, snapshots)...) {
			want, got := comparable(viewOf(t, h.model, v)), comparable(viewOf(t, h.tested, v))
			same(t, v.String(), got, want)
			if t.Failed() {
				t.Fatal(strings.Join(h.log, "\n"))
			}
		}
	}
}

func at(vol storage.Volume, snapshots []string) []storage.Volume {
	var all []storage.Volume
	for _, s := range snapshots {
		all = append(all, vol.At(s))
	}
	return all
}

// comparable leaves out what may differ: times, and that names belong to one
// file, which overlayfs gives up when it copies one of them up.
func comparable(m map[string]string) map[string]string {
	out := map[string]string{}
	for path, line := range m {
		line = clockless("", line)
		if before, after, ok := strings.Cut(line, " linked "); ok {
			_, rest, _ := strings.Cut(after, " ")
			line = before + " " + rest
		}
		out[path] = strings.TrimSpace(line)
	}
	return out
}
