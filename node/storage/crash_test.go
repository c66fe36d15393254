package storage_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/state"
)

// childEnv tells a copy of the test program to be the victim of a crash test:
// "work <driver> <directory> <seed> <volumes>", "create <driver> <directory>" or
// "receive <driver> <directory> <file>".
const childEnv = "MUSTER_STORAGE_CHILD"

// A crash test's parent and child keep the same books: the value written to
// each volume, and the value that each snapshot of it has.
type books map[string]*book

type book struct {
	value     int
	snapshots map[string]int
}

func (b books) clone() books {
	out := books{}
	for name, v := range b {
		out[name] = &book{v.value, maps.Clone(v.snapshots)}
	}
	return out
}

// step is one line of the child: "snapshot c1 s3".
type step []string

func (s step) arg(i int) string { return s[i] }

// apply books a step.
func (b books) apply(s step) {
	switch s.arg(0) {
	case "create":
		b[s.arg(1)] = &book{0, map[string]int{}}
	case "write":
		b[s.arg(1)].value, _ = strconv.Atoi(s.arg(2)) // written by us
	case "snapshot":
		b[s.arg(1)].snapshots[s.arg(2)] = b[s.arg(1)].value
	case "restore":
		b[s.arg(1)].value = b[s.arg(1)].snapshots[s.arg(2)]
	case "forget":
		delete(b[s.arg(1)].snapshots, s.arg(2))
	case "copy":
		b[s.arg(2)] = &book{b[s.arg(1)].value, maps.Clone(b[s.arg(1)].snapshots)}
	case "rename":
		b[s.arg(2)] = b[s.arg(1)]
		delete(b, s.arg(1))
	case "delete":
		delete(b, s.arg(1))
	}
}

// do carries a step out.
func (s step) do(ctx context.Context, p *storage.Pool) error {
	if s.arg(0) == "image" {
		if err := p.DeleteImage(ctx, fingerprint(1)); err != nil {
			return err
		}
		return p.EnsureImage(ctx, fingerprint(1), tiny)
	}
	vol := storage.Instance(s.arg(1))
	switch s.arg(0) {
	case "create":
		return p.CreateFromImage(ctx, vol, fingerprint(1))
	case "write":
		m := ids
		if strings.HasSuffix(s.arg(2), "7") {
			m = storage.Shift(6_000_000, 65536)
		}
		mounted, err := p.MountVolume(ctx, vol, m)
		if err != nil {
			return err
		}
		err = asRootOf(int(m.UIDs[0].Host), func() error {
			path := filepath.Join(mounted.RootFS, "value")
			if err := os.WriteFile(path+".new", []byte(s.arg(2)), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		})
		if err != nil {
			return err
		}
		return p.UnmountVolume(ctx, vol)
	case "snapshot":
		return p.Snapshot(ctx, vol.At(s.arg(2)))
	case "restore":
		return p.Restore(ctx, vol.At(s.arg(2)))
	case "forget":
		return p.DeleteVolume(ctx, vol.At(s.arg(2)))
	case "copy":
		return p.Copy(ctx, storage.Instance(s.arg(2)), p, vol, strings.Fields(strings.Join(s[3:], " ")))
	case "rename":
		return p.Rename(ctx, vol, s.arg(2))
	case "delete":
		return p.DeleteVolume(ctx, vol)
	}
	return fmt.Errorf("unknown step %v", s)
}

// tiny is an image with a few files, so that steps are many.
func tiny(_ context.Context, dir string) error {
	for i := range 20 {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", fmt.Sprint(i)), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "rootfs", "value"), []byte("0"), 0o644)
}

// next chooses a step that can be done.
func (b books) next(r *rand.Rand, n int) step {
	names := slices.Sorted(maps.Keys(b))
	if len(names) == 0 || len(names) < 4 && r.IntN(5) == 0 {
		return step{"create", fmt.Sprint("c", n)}
	}
	name := names[r.IntN(len(names))]
	snapshots := slices.Sorted(maps.Keys(b[name].snapshots))
	switch i := r.IntN(12); {
	case i < 3:
		return step{"write", name, fmt.Sprint(n)}
	case i < 6:
		return step{"snapshot", name, fmt.Sprint("s", n)}
	case i < 7 && len(snapshots) > 0:
		return step{"restore", name, snapshots[r.IntN(len(snapshots))]}
	case i < 8 && len(snapshots) > 0:
		return step{"forget", name, snapshots[r.IntN(len(snapshots))]}
	case i < 9 && len(names) < 5:
		return append(step{"copy", name, fmt.Sprint("c", n)}, snapshots...)
	case i < 10:
		return step{"rename", name, fmt.Sprint("c", n)}
	case i < 11:
		return step{"image"}
	}
	return step{"delete", name}
}

// child is the victim. It says what it begins and what it has done.
func child(run string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	args := strings.Split(run, "|")
	cfg := storage.Config{Dir: filepath.Join(args[2], "storage-pools"), Disks: filepath.Join(args[2], "disks")}
	p, err := storage.Open(ctx, cfg, state.Pool{Name: "pool", Driver: args[1], Config: smallConfig(args[1])})
	fail(err)
	fmt.Println("ready")
	if args[0] == "create" {
		_, err := p.Create(ctx)
		fail(err)
		fmt.Println("created")
		select {}
	}
	fail(p.Mount(ctx))
	if args[0] == "receive" {
		f, err := os.Open(args[3])
		fail(err)
		_, err = p.Receive(ctx, storage.Instance("c1"), f)
		fail(err)
		fmt.Println("received")
		select {}
	}
	seed, err := strconv.ParseUint(args[3], 10, 64)
	fail(err)
	r := rand.New(rand.NewPCG(seed, 2))
	b := books{}
	for line := range strings.SplitSeq(args[4], ";") {
		if line != "" {
			b.load(line)
		}
	}
	for n := int(seed % 1000 * 1000); ; n++ {
		s := b.next(r, n)
		fmt.Println("begin", strings.Join(s, " "))
		fail(s.do(ctx, p))
		b.apply(s)
		fmt.Println("done")
	}
}

// load and dump carry books from parent to child: "c1 17 s1=3 s2=17".
func (b books) load(line string) {
	fields := strings.Fields(line)
	v := &book{snapshots: map[string]int{}}
	v.value, _ = strconv.Atoi(fields[1]) // written by dump
	for _, f := range fields[2:] {
		name, value, _ := strings.Cut(f, "=")
		v.snapshots[name], _ = strconv.Atoi(value)
	}
	b[fields[0]] = v
}

func (b books) dump() string {
	var lines []string
	for name, v := range b {
		line := fmt.Sprint(name, " ", v.value)
		for s, value := range v.snapshots {
			line += fmt.Sprintf(" %s=%d", s, value)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ";")
}

// killed starts a child and kills it a while after its first line. It returns
// what the child said.
func killed(t *testing.T, run string, after time.Duration) []string {
	t.Helper()
	self, err := os.Executable()
	noError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+run)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	var said []string
	var timer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have failed already
			defer timer.Stop()
		}
		said = append(said, lines.Text())
	}
	_ = cmd.Wait() // killed
	if len(said) == 0 || strings.HasPrefix(said[len(said)-1], "error") {
		t.Fatalf("the child said %q", said)
	}
	return said
}

// The process dies at any moment. The next one finds every volume that was
// acknowledged, as it was, and nothing else; and no mount.
func TestKilledInTheMiddle(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			dir := scratch(t)
			p := createIn(t, dir, driver, smallConfig(driver))
			noError(t, p.EnsureImage(t.Context(), fingerprint(1), tiny))
			truth := books{}
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano())
			}
			t.Logf("seed %d", s)
			r := rand.New(rand.NewPCG(s, 3))
			steps, halfway := 0, 0
			for round := range 12 {
				run := strings.Join([]string{"work", driver, dir, fmt.Sprint(r.Uint64()/1000*1000 + uint64(round)), truth.dump()}, "|")
				said := killed(t, run, time.Duration(r.IntN(150_000))*time.Microsecond)
				after := truth.clone()
				var open step
				for _, line := range said[1:] {
					if rest, ok := strings.CutPrefix(line, "begin "); ok {
						open = strings.Fields(rest)
						continue
					}
					after.apply(open)
					open = nil
					steps++
				}
				var left int
				truth, left = survived(t, dir, driver, after, open)
				halfway += min(left, 1)
			}
			t.Logf("%d steps were done; %d of 12 kills left something to clean up", steps, halfway)
			// p did not see what happened; the clean-up needs a fresh view.
			fresh := poolIn(t, dir, driver, nil)
			noError(t, fresh.Mount(t.Context()))
			for name := range truth {
				noError(t, fresh.DeleteVolume(t.Context(), storage.Instance(name)))
			}
			nothingLeft(t, fresh)
		})
	}
}

// survived is the next daemon's start: it checks the pool against the books and
// returns them with the step that was cut off either done or not, and how much
// had to be cleaned up.
func survived(t *testing.T, dir, driver string, before books, open step) (books, int) {
	t.Helper()
	ctx := t.Context()
	p := poolIn(t, dir, driver, smallConfig(driver))
	noError(t, p.Mount(ctx))
	report, err := p.Reconcile(ctx, storage.Known{})
	noError(t, err)
	mounts, err := mount.Table(dir)
	noError(t, err)
	if len(mounts) != 2 { // the pool and its mount points
		t.Fatalf("after %v these are mounted: %v", open, mounts)
	}
	nothingLeft(t, p)
	after := before.clone()
	if open != nil {
		after.apply(open)
	}
	noError(t, p.EnsureImage(ctx, fingerprint(1), tiny))
	got := books{}
	volumes, err := p.Volumes(ctx)
	noError(t, err)
	for vol, snapshots := range volumes {
		value := func(v storage.Volume) int {
			n, err := strconv.Atoi(readIn(t, p, v, "value"))
			noError(t, err)
			return n
		}
		b := &book{value(vol), map[string]int{}}
		for _, s := range snapshots {
			b.snapshots[s] = value(vol.At(s))
		}
		got[vol.Name] = b
	}
	for _, possible := range []books{before, after} {
		if sameBooks(got, possible) {
			return possible, len(report.Removed) + len(report.Unmounted)
		}
	}
	t.Fatalf("cut off in %v, the pool has %s; want %s or %s", open, got.dump(), before.dump(), after.dump())
	return nil, 0
}

func sameBooks(a, b books) bool {
	return maps.EqualFunc(a, b, func(x, y *book) bool {
		return x.value == y.value && maps.Equal(x.snapshots, y.snapshots)
	})
}

// A pool that was never finished goes without a trace.
func TestKilledWhileCreatingAPool(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			for i := range 8 {
				dir := scratch(t)
				killed(t, strings.Join([]string{"create", driver, dir}, "|"), time.Duration(i*i)*2*time.Millisecond)
				p := poolIn(t, dir, driver, smallConfig(driver))
				noError(t, p.Delete(t.Context()))
				mounts, err := mount.Table(dir)
				noError(t, err)
				left, err := os.ReadDir(filepath.Join(dir, "storage-pools"))
				noError(t, err)
				disks, _ := os.ReadDir(filepath.Join(dir, "disks")) // may be gone
				if len(mounts)+len(left)+len(disks) > 0 {
					t.Errorf("killed after %d ms: mounted %v, left %v %v", i*i*2, mounts, left, disks)
				}
				_, err = p.Create(t.Context())
				noError(t, err)
				noError(t, p.Delete(t.Context()))
			}
		})
	}
}

// The next daemon keeps the mounts of what runs, and takes down the rest.
func TestReconcileKeepsWhatRuns(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := t.Context()
			dir := scratch(t)
			first := createIn(t, dir, driver, smallConfig(driver))
			image, _ := withZoo(t, first)
			running, stale, data := storage.Instance("running"), storage.Instance("stale"), storage.Custom("data")
			noError(t, first.CreateFromImage(ctx, running, image))
			noError(t, first.CreateFromImage(ctx, stale, image))
			noError(t, first.CreateEmpty(ctx, data))
			noError(t, first.Snapshot(ctx, running.At("s")))
			kept, err := first.MountVolume(ctx, running, ids)
			noError(t, err)
			gone, err := first.MountVolume(ctx, stale, ids)
			noError(t, err)
			disk, err := first.MountVolume(ctx, data, ids)
			noError(t, err)

			// As after a kill: a new daemon, with nothing in memory.
			p := poolIn(t, dir, driver, smallConfig(driver))
			noError(t, p.Mount(ctx))
			report, err := p.Reconcile(ctx, storage.Known{
				Volumes: map[storage.Volume][]string{running: {"s", "lost"}, data: nil, storage.Instance("never"): nil},
				Running: []storage.Volume{running, data},
				Images:  []string{fingerprint(4)},
			})
			noError(t, err)
			if !slices.Equal(report.Unmounted, []string{gone.RootFS}) {
				t.Errorf("unmounted %v, want %v alone", report.Unmounted, gone.RootFS)
			}
			if want := []storage.Volume{storage.Instance("never"), running.At("lost")}; !slices.Equal(report.Missing, want) {
				t.Errorf("missing %v, want %v", report.Missing, want)
			}
			if want := []storage.Volume{stale}; !slices.Equal(report.Strangers, want) {
				t.Errorf("strangers %v, want %v", report.Strangers, want)
			}
			if p.ImagePresent(image) {
				t.Error("an image that is not known was kept")
			}
			for _, m := range []storage.Mounted{kept, disk} {
				if at, err := mount.At(m.RootFS); err != nil || !at {
					t.Errorf("%s is mounted: %v (%v)", m.RootFS, at, err)
				}
			}
			container(t, kept.RootFS, ids, "echo still > /here")
			again, err := p.MountVolume(ctx, running, ids)
			noError(t, err)
			if again != kept {
				t.Errorf("mounted again at %v, want %v", again, kept)
			}
			noError(t, p.UnmountVolume(ctx, running))
			container(t, kept.RootFS, ids, "cat /here")
			noError(t, p.UnmountVolume(ctx, running))
			noError(t, p.UnmountCustom(ctx, data, ids))
			if at, err := mount.At(kept.RootFS); err != nil || at {
				t.Errorf("after it stopped it is mounted: %v (%v)", at, err)
			}
			noError(t, first.UnmountVolume(ctx, running))
			noError(t, first.UnmountVolume(ctx, stale))
			noError(t, first.UnmountCustom(ctx, data, ids))
		})
	}
}

// Many at once, on few volumes: nothing deadlocks, nothing is half there.
func TestConcurrently(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		noError(t, p.EnsureImage(ctx, fingerprint(1), tiny))
		for i := range 3 {
			noError(t, p.CreateFromImage(ctx, storage.Instance(fmt.Sprint("c", i)), fingerprint(1)))
		}
		done := make(chan struct{})
		const workers = 8
		for w := range workers {
			go func() {
				defer func() { done <- struct{}{} }()
				r := rand.New(rand.NewPCG(uint64(w), 4))
				for n := range 25 {
					vol := storage.Instance(fmt.Sprint("c", r.IntN(3)))
					own := fmt.Sprintf("w%d-%d", w, n)
					var err error
					switch r.IntN(7) {
					case 0:
						err = p.Snapshot(ctx, vol.At(own))
					case 1:
						err = p.Copy(ctx, storage.Instance(own), p, vol, nil)
					case 2:
						err = p.DeleteVolume(ctx, storage.Instance(fmt.Sprintf("w%d-%d", w, n-1)))
					case 3:
						err = p.DeleteVolume(ctx, vol.At(fmt.Sprintf("w%d-%d", w, n-1)))
					case 4:
						if _, err = p.MountVolume(ctx, vol, ids); err == nil {
							err = p.UnmountVolume(ctx, vol)
						}
					case 5:
						err = p.ViewVolume(ctx, vol, func(m storage.Mounted) error {
							_, err := os.ReadFile(filepath.Join(m.RootFS, "value"))
							return err
						})
					case 6:
						// May meet a mount, and then is refused.
						if err = p.Restore(ctx, vol.At(own)); state.Kind(err) != nil {
							err = nil
						}
					}
					if err != nil {
						t.Errorf("worker %d: %v", w, err)
						return
					}
				}
			}()
		}
		for range workers {
			<-done
		}
		nothingLeft(t, p)
	})
}
