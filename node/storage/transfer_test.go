package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/node/storage/stream"
	"muster/state"
)

// pair is a volume on its way from one pool to another.
type pair struct {
	from, to  *storage.Pool
	vol       storage.Volume
	snapshots []string
	base      string
	// cut ends the stream after so many bytes; zero is never.
	cut int64
}

// everyPair runs the test for each two drivers.
func everyPair(t *testing.T, test func(t *testing.T, from, to *storage.Pool)) {
	needsRoot(t)
	for _, from := range drivers {
		for _, to := range drivers {
			t.Run(from+" to "+to, func(t *testing.T) { test(t, newPool(t, from), newPool(t, to)) })
		}
	}
}

var errCut = errors.New("the line was cut")

// cutWriter passes on so many bytes and then fails.
type cutWriter struct {
	w    io.Writer
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		n, _ := c.w.Write(p[:c.left]) // the cut is the error
		c.left = 0
		return n, errCut
	}
	c.left -= int64(len(p))
	return c.w.Write(p)
}

// run sends once. It returns what was sent and the errors of both ends.
func (p pair) run(ctx context.Context) (sent stream.Stats, sending, receiving error) {
	var inventory bytes.Buffer
	if err := p.to.Inventory(ctx, p.vol, p.base, &inventory); err != nil {
		return sent, nil, fmt.Errorf("inventory: %w", err)
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var out io.Writer = w
		if p.cut > 0 {
			out = &cutWriter{w, p.cut}
		}
		sent, sending = p.from.Send(ctx, p.vol, p.snapshots, &inventory, out)
		w.CloseWithError(sending)
	}()
	_, receiving = p.to.Receive(ctx, p.vol, r)
	r.CloseWithError(receiving)
	<-done
	return sent, sending, receiving
}

// send sends once and fails the test if that does not work.
func (p pair) send(t testing.TB) stream.Stats {
	t.Helper()
	sent, sending, receiving := p.run(t.Context())
	if sending != nil || receiving != nil {
		t.Fatalf("send: %v, receive: %v", sending, receiving)
	}
	return sent
}

// arrived compares what arrived with the source, times included.
func (p pair) arrived(t testing.TB) {
	t.Helper()
	noError(t, p.to.Commit(t.Context(), p.vol))
	p.equal(t)
}

func (p pair) equal(t testing.TB) {
	t.Helper()
	for _, name := range append([]string{""}, p.snapshots...) {
		vol := p.vol.At(name)
		same(t, "what arrived of "+vol.String(), exactly(t, p.to, vol), exactly(t, p.from, vol))
	}
	volumes, err := p.to.Volumes(t.Context())
	noError(t, err)
	if got := volumes[p.vol]; len(got) != len(p.snapshots) {
		t.Errorf("the snapshots %v arrived, want %v", got, p.snapshots)
	}
}

// exactly is viewOf with the times of directories and links, all data and what
// else belongs to a volume.
func exactly(t testing.TB, p *storage.Pool, vol storage.Volume) map[string]string {
	t.Helper()
	all := map[string]string{}
	noError(t, p.ViewVolume(t.Context(), vol, func(m storage.Mounted) error {
		trees := map[string]string{"rootfs": m.RootFS}
		if m.Dir != "" {
			trees["metadata.yaml"] = filepath.Join(m.Dir, "metadata.yaml")
			trees["templates"] = filepath.Join(m.Dir, "templates")
		}
		for name, dir := range trees {
			if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
				continue
			}
			for path, line := range manifest(t, dir, 0) {
				full := filepath.Join(dir, path)
				var st unix.Stat_t
				if err := unix.Lstat(full, &st); err != nil {
					return err
				}
				line += fmt.Sprintf(" at %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
				if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size < 32<<20 {
					data, err := os.ReadFile(full)
					if err != nil {
						return err
					}
					line += fmt.Sprintf(" %x", sumOf(data))
				}
				all[filepath.Join(name, path)] = line
			}
		}
		return nil
	}))
	names := map[string]int{}
	for _, line := range all {
		names[linkOf(line)]++
	}
	for path, line := range all {
		if path == "metadata.yaml" {
			// Copied by content wherever a volume is cloned.
			line, _, _ = strings.Cut(line, " mtime ")
		}
		// A name that was removed may still count in an overlay.
		if l := linkOf(line); names[l] == 1 {
			line = strings.Replace(line, l, "", 1)
		}
		all[path] = line
	}
	return all
}

// linkOf returns the part of a manifest's line that tells of other names.
func linkOf(line string) string {
	i := strings.Index(line, " linked ")
	if i < 0 {
		return ""
	}
	rest := line[i+len(" linked "):]
	j := strings.IndexByte(rest, ' ')
	return line[i : i+len(" linked ")+j]
}

// sumOf tells data apart that differ.
func sumOf(data []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range data {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// travelled makes c1 with two snapshots on a pool, stopped.
func travelled(t testing.TB, p *storage.Pool) storage.Volume {
	t.Helper()
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	inMount(t, p, c1, ids, "echo 1 > /file; chown 12:13 /file; mv /usr/share /usr/lib; ln -s /file /link; mkfifo /tmp/fifo; ln /file /file2")
	noError(t, p.Snapshot(ctx, c1.At("s1")))
	inMount(t, p, c1, ids, "echo 2 > /file; rm -r /home/ann; mkdir /home/bob; mv /etc/shadow /home/bob; rm /bin/su; mkdir /bin/su; echo x > /bin/su/x")
	noError(t, p.Snapshot(ctx, c1.At("s2")))
	inMount(t, p, c1, ids, "dd if=/dev/urandom of=/random bs=100k count=10 2>/dev/null || dd if=/bin/busybox of=/random; chmod 700 /etc/passwd; chown 5:6 /var; touch /last; rm /file2; ln /last /last2")
	return c1
}

func TestSend(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		c1 := travelled(t, from)
		p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}}
		first := p.send(t)
		if to.VolumePresent(c1) {
			t.Error("the volume is there before it was committed")
		}
		again := p.send(t)
		if again.Files > 0 || again.Bytes > 0 || again.Removed > 0 {
			t.Errorf("sending the same again sent %+v", again)
		}
		p.arrived(t)
		noError(t, to.Commit(t.Context(), c1))
		t.Logf("sent %+v", first)
		if out := inMount(t, to, c1, storage.Shift(4_000_000, 65536), "cat /file; stat -c %u:%g /var; cat /home/bob/shadow; echo mine > /file"); out != "2\n5:6\nsecret" {
			t.Errorf("the container sees %q", out)
		}
		noError(t, to.Restore(t.Context(), c1.At("s1")))
		if out := inMount(t, to, c1, ids, "cat /file; cat /home/ann/notes2"); out != "1\nremember" {
			t.Errorf("after it was restored the container sees %q", out)
		}
		nothingLeft(t, from)
		nothingLeft(t, to)
	})
}

// What two snapshots have in common travels once.
func TestSendOfSnapshotsSendsDifferences(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, from)
		c1 := storage.Instance("c1")
		noError(t, from.CreateFromImage(ctx, c1, image))
		p := pair{from: from, to: to, vol: c1}
		one := p.send(t)
		noError(t, to.Abandon(ctx, c1))
		for i := range 4 {
			noError(t, from.Snapshot(ctx, c1.At(fmt.Sprint("s", i))))
			p.snapshots = append(p.snapshots, fmt.Sprint("s", i))
			inMount(t, from, c1, ids, fmt.Sprintf("echo %d > /file; chmod 75%d /etc", i, i))
		}
		many := p.send(t)
		if many.Bytes > one.Bytes+100 || many.Files > one.Files+4 {
			t.Errorf("with four snapshots %+v were sent, without %+v", many, one)
		}
		p.arrived(t)
	})
}

// The line is cut again and again, in the middle of a large file too.
func TestSendGoesOn(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		c1 := travelled(t, from)
		noError(t, inVolume(t, from, c1, func(root string) error {
			data := make([]byte, 20<<20)
			r := rand.NewChaCha8([32]byte{1})
			_, _ = r.Read(data) // never fails
			w := &writer{root: root}
			w.file("large", string(data), 0o640, 7, 8)
			return w.err
		}))
		p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}}
		whole := p.send(t)
		noError(t, to.Abandon(t.Context(), c1))
		s := *seed
		if s == 0 {
			s = uint64(time.Now().UnixNano())
		}
		r := rand.New(rand.NewPCG(s, 5))
		t.Logf("seed %d, whole %+v", s, whole)
		var total int64
		for tries := 0; ; tries++ {
			if tries > 20 {
				t.Fatal("it does not end")
			}
			p.cut = 1 + r.Int64N(6<<20)
			if r.IntN(3) == 0 {
				p.cut = 1 + r.Int64N(100<<10)
			}
			if tries > 10 {
				p.cut = 0
			}
			sent, sending, receiving := p.run(t.Context())
			total += sent.Bytes
			if sending == nil && receiving == nil {
				break
			}
			if sending != nil && !errors.Is(sending, errCut) {
				t.Fatalf("try %d: send: %v, receive: %v", tries, sending, receiving)
			}
			if err := to.Commit(t.Context(), c1); !errors.Is(err, state.ErrConflict) {
				t.Fatalf("commit of a part: %v, want ErrConflict", err)
			}
		}
		p.cut = 0
		p.arrived(t)
		nothingLeft(t, to)
	})
}

// inVolume lets do change the files of a stopped volume, as a privileged
// container would.
func inVolume(t testing.TB, p *storage.Pool, vol storage.Volume, do func(root string) error) error {
	t.Helper()
	m, err := p.MountVolume(t.Context(), vol, nil)
	noError(t, err)
	defer func() { noError(t, p.UnmountVolume(context.WithoutCancel(t.Context()), vol)) }()
	return do(m.RootFS)
}

// A first stream goes while the container runs and writes, a second once it is
// stopped. What arrives is what is there in the end.
func TestSendOfARunningVolume(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		ctx := t.Context()
		c1 := travelled(t, from)
		p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}}
		mounted, err := from.MountVolume(ctx, c1, ids)
		noError(t, err)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			restless(mounted.RootFS, stop)
		}()
		for range 3 {
			if _, sending, receiving := p.run(ctx); sending != nil || receiving != nil {
				t.Errorf("while it runs: send: %v, receive: %v", sending, receiving)
			}
		}
		noError(t, from.Snapshot(ctx, c1.At("s3")))
		noError(t, from.DeleteVolume(ctx, c1.At("s2")))
		p.snapshots = []string{"s1", "s3"}
		close(stop)
		<-stopped
		container(t, mounted.RootFS, ids, "echo end > /file; rm -r /home; mkdir -p /home/new; chmod 4711 /bin/busybox; rm /link; mkdir /link; ln /etc/passwd /link/p")
		noError(t, from.UnmountVolume(ctx, c1))
		last := p.send(t)
		t.Logf("the last stream: %+v", last)
		if last.Bytes > 200_000 {
			t.Errorf("after it stopped %d bytes were sent", last.Bytes)
		}
		p.arrived(t)
		nothingLeft(t, to)
	})
}

// restless changes files as fast as it can, until stop is closed.
func restless(root string, stop <-chan struct{}) {
	_ = asRootOf(1_000_000, func() error {
		dir := filepath.Join(root, "tmp")
		for n := 0; ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			// The errors are those of our own confusion.
			a, b := filepath.Join(dir, fmt.Sprint("a", n%7)), filepath.Join(dir, fmt.Sprint("b", n%5))
			_ = os.WriteFile(a, bytes.Repeat([]byte{byte(n)}, n%9*3000), 0o600)
			_ = os.Rename(a, b)
			_ = os.Link(b, a)
			_ = os.Truncate(b, int64(n%3))
			_ = os.Remove(filepath.Join(dir, "d", "x"))
			_ = os.Remove(filepath.Join(dir, "d"))
			_ = os.Mkdir(filepath.Join(dir, "d"), 0o700)
			_ = os.WriteFile(filepath.Join(dir, "d", "x"), nil, 0o600)
			if n%4 == 0 {
				_ = os.Remove(b)
				_ = os.Symlink("x", b)
			}
		}
	})
}

// With the image at the receiver only the difference to it travels.
func TestSendFromTheImage(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		c1 := travelled(t, from)
		p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}}
		without := p.send(t)
		noError(t, to.Abandon(t.Context(), c1))
		p.base, _ = withZoo(t, to)
		with := p.send(t)
		p.arrived(t)
		t.Logf("with the image %+v, without %+v", with, without)
		if with.Bytes > without.Bytes/2 {
			t.Errorf("with the image %d bytes were sent, without %d", with.Bytes, without.Bytes)
		}
		nothingLeft(t, to)
	})
}

func TestSendOfACustomVolume(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		ctx := t.Context()
		data := storage.Custom("a b,c:d")
		noError(t, from.CreateEmpty(ctx, data))
		noError(t, inVolume(t, from, data, func(root string) error {
			w := &writer{root: root}
			w.file("file", "one", 0o644, 33, 34)
			w.sparse("sparse", 64<<20)
			return w.err
		}))
		noError(t, from.Snapshot(ctx, data.At("s 1")))
		noError(t, inVolume(t, from, data, func(root string) error { return os.Chmod(root, 0o1770) }))
		p := pair{from: from, to: to, vol: data, snapshots: []string{"s 1"}}
		if sent := p.send(t); sent.Bytes > 100<<10 {
			t.Errorf("%d bytes were sent of a sparse file", sent.Bytes)
		}
		p.arrived(t)
		nothingLeft(t, to)
	})
}

func TestAbandon(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		c1 := travelled(t, p)
		other := newPool(t, "dir")
		for _, cut := range []int64{0, 1, 500, 30_000, 300_000} {
			if _, sending, receiving := (pair{from: p, to: other, vol: c1, snapshots: []string{"s1", "s2"}, cut: cut}).run(ctx); (sending == nil && receiving == nil) != (cut == 0) {
				t.Errorf("a line that is cut after %d bytes, 0 being never: %v, %v", cut, sending, receiving)
			}
			noError(t, other.Abandon(ctx, c1))
			if other.Arriving(c1) {
				t.Error("something is left")
			}
			nothingLeft(t, other)
		}
		noError(t, other.Abandon(ctx, c1))
		if err := other.Commit(ctx, c1); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("commit of nothing: %v, want ErrNotFound", err)
		}
		for name, err := range map[string]error{
			"a volume that is there": p.Inventory(ctx, c1, "", io.Discard),
			"receiving what is there": func() error {
				_, err := p.Receive(ctx, c1, strings.NewReader(""))
				return err
			}(),
		} {
			if !errors.Is(err, state.ErrExists) {
				t.Errorf("%s: %v, want ErrExists", name, err)
			}
		}
	})
}

// The receiver dies at any moment. The next daemon keeps what arrived of a
// volume that is wanted, goes on with it, and removes it when it is not.
func TestKilledWhileReceiving(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := t.Context()
			from, dir := newPool(t, "dir"), scratch(t)
			to := createIn(t, dir, driver, smallConfig(driver))
			c1 := travelled(t, from)
			noError(t, inVolume(t, from, c1, func(root string) error {
				for i := range 60 {
					if err := os.WriteFile(filepath.Join(root, "home", fmt.Sprint(i)), bytes.Repeat([]byte{byte(i + 1)}, 300_000), 0o600); err != nil {
						return err
					}
				}
				return nil
			}))
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano())
			}
			t.Logf("seed %d", s)
			r := rand.New(rand.NewPCG(s, 6))
			p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}}
			file := filepath.Join(scratch(t), "stream")
			var sizes []int
			for range 10 {
				var inventory, data bytes.Buffer
				noError(t, p.to.Inventory(ctx, c1, "", &inventory))
				_, err := from.Send(ctx, c1, p.snapshots, &inventory, &data)
				noError(t, err)
				sizes = append(sizes, data.Len())
				noError(t, os.WriteFile(file, data.Bytes(), 0o600))
				killed(t, strings.Join([]string{"receive", driver, dir, file}, "|"), time.Duration(r.IntN(60_000))*time.Microsecond)
				p.to = poolIn(t, dir, driver, smallConfig(driver))
				noError(t, p.to.Mount(ctx))
				report, err := p.to.Reconcile(ctx, storage.Known{Incoming: []storage.Volume{c1}})
				noError(t, err)
				if len(report.Strangers) > 0 {
					t.Errorf("these are there before they were committed: %v", report.Strangers)
				}
			}
			t.Logf("the streams were of %v bytes", sizes)
			p.send(t)
			p.arrived(t)
			noError(t, p.to.DeleteVolume(ctx, c1))

			if _, sending, receiving := (pair{from: from, to: p.to, vol: c1, snapshots: p.snapshots, cut: 1 << 20}).run(ctx); sending == nil && receiving == nil {
				t.Error("a line that was cut was no error")
			}
			if !p.to.Arriving(c1) {
				t.Error("nothing is arriving")
			}
			report, err := p.to.Reconcile(ctx, storage.Known{})
			noError(t, err)
			if p.to.Arriving(c1) || len(report.Removed) == 0 {
				t.Errorf("what nobody wants is kept; removed: %v", report.Removed)
			}
			nothingLeft(t, p.to)
		})
	}
}

// After the machine went down nothing is believed that was not on disk for
// sure: the files of unfinished contents are looked at.
func TestReceivingGoesOnAfterABoot(t *testing.T) {
	everyDriver(t, func(t *testing.T, to *storage.Pool) {
		from := newPool(t, "dir")
		c1 := travelled(t, from)
		noError(t, inVolume(t, from, c1, func(root string) error {
			return os.WriteFile(filepath.Join(root, "zlast"), bytes.Repeat([]byte("0123456789"), 500_000), 0o600)
		}))
		p := pair{from: from, to: to, vol: c1, snapshots: []string{"s1", "s2"}, cut: 5 << 20}
		_, sending, _ := p.run(t.Context())
		if !errors.Is(sending, errCut) {
			t.Fatalf("send: %v, want a cut", sending)
		}
		notes := filepath.Join(rootOf(t, to), "incoming", "container-c1", "notes.json")
		data, err := os.ReadFile(notes)
		noError(t, err)
		before, rest, _ := strings.Cut(string(data), `"boot":"`)
		noError(t, os.WriteFile(notes, []byte(before+`"boot":"x`+rest), 0o600))
		p.cut = 0
		last := p.send(t)
		t.Logf("after the boot %+v", last)
		p.arrived(t)
		nothingLeft(t, to)
	})
}

// What a running container shows is what its volume holds once it is stopped,
// owners and all; and what did not change in between is not read again.
func TestSecondStreamReadsOnlyWhatChanged(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, from)
		c1 := storage.Instance("c1")
		noError(t, from.CreateFromImage(ctx, c1, image))
		mounted, err := from.MountVolume(ctx, c1, ids)
		noError(t, err)
		container(t, mounted.RootFS, ids, "echo mine > /file; chown 12:13 /file; ln /file /file2; chown 7 /etc; mkdir /acl; echo 1 > /changing")
		w := &writer{root: mounted.RootFS}
		w.xattr("file", "security.capability", rootCapability(1_000_000))
		w.xattr("acl", "system.posix_acl_access", acl(1_000_005))
		w.xattr("acl", "system.posix_acl_default", acl(1_000_006))
		noError(t, w.err)
		p := pair{from: from, to: to, vol: c1}
		// Times prove something once they are a second old, so this takes one.
		time.Sleep(1200 * time.Millisecond)
		p.send(t)
		container(t, mounted.RootFS, ids, "echo 2 > /changing")
		noError(t, from.UnmountVolume(ctx, c1))
		last := p.send(t)
		if want := (stream.Stats{Files: 1, Bytes: 2}); last != want {
			t.Errorf("the second stream: %+v, want %+v", last, want)
		}
		p.arrived(t)
		if at, err := mount.At(mounted.RootFS); err != nil || at {
			t.Errorf("the source is mounted: %v (%v)", at, err)
		}
	})
}

// The container may stop while it is being read, and start again.
func TestStopWhileSending(t *testing.T) {
	everyDriver(t, func(t *testing.T, from *storage.Pool) {
		ctx := t.Context()
		to := newPool(t, "dir")
		c1 := travelled(t, from)
		mounted, err := from.MountVolume(ctx, c1, ids)
		noError(t, err)
		var inventory bytes.Buffer
		noError(t, to.Inventory(ctx, c1, "", &inventory))
		r, w := io.Pipe()
		done := make(chan error)
		go func() {
			_, err := from.Send(ctx, c1, nil, &inventory, w)
			w.CloseWithError(err)
			done <- err
		}()
		first := make([]byte, 1000)
		_, err = io.ReadFull(r, first)
		noError(t, err)
		noError(t, from.UnmountVolume(ctx, c1))
		again, err := from.MountVolume(ctx, c1, ids)
		noError(t, err)
		if again != mounted {
			t.Errorf("mounted at %v, then at %v", mounted, again)
		}
		noError(t, from.UnmountVolume(ctx, c1))
		_, err = to.Receive(ctx, c1, io.MultiReader(bytes.NewReader(first), r))
		noError(t, errors.Join(err, <-done))
		pair{from: from, to: to, vol: c1}.arrived(t)
		if at, err := mount.At(mounted.RootFS); err != nil || at {
			t.Errorf("the source is mounted: %v (%v)", at, err)
		}
		nothingLeft(t, from)
	})
}

// A volume changes at random, snapshots come and go, it is restored, and streams
// are sent and cut in between, some while it runs. In the end everything is as
// at the source.
func TestRandomHistorySent(t *testing.T) {
	everyPair(t, func(t *testing.T, from, to *storage.Pool) {
		ctx := t.Context()
		s := *seed
		if s == 0 {
			s = uint64(time.Now().UnixNano())
		}
		t.Logf("seed %d", s)
		h := &history{rand: rand.New(rand.NewPCG(s, 7))}
		image, _ := withZoo(t, from)
		p := pair{from: from, to: to, vol: storage.Instance("c1")}
		if h.rand.IntN(2) == 0 {
			p.base, _ = withZoo(t, to)
		}
		noError(t, from.CreateFromImage(ctx, p.vol, image))
		snapshot := func() {
			name := h.name("s")
			noError(t, from.Snapshot(ctx, p.vol.At(name)))
			p.snapshots = append(p.snapshots, name)
		}
		for range 12 {
			m := ids
			if h.rand.IntN(4) == 0 {
				m = storage.Shift(7_000_000, 65536)
			}
			mounted, err := from.MountVolume(ctx, p.vol, m)
			noError(t, err)
			container(t, mounted.RootFS, m, h.script()+"\n{ ln /bin/busybox /home/l; ln -f /etc/passwd /usr/l; echo x >> /usr/l; } 2>/dev/null || true")
			running := h.rand.IntN(2) == 0
			if !running {
				noError(t, from.UnmountVolume(ctx, p.vol))
			}
			switch n := h.rand.IntN(6); {
			case n < 3:
				snapshot()
			case n == 3 && len(p.snapshots) > 0:
				i := h.rand.IntN(len(p.snapshots))
				noError(t, from.DeleteVolume(ctx, p.vol.At(p.snapshots[i])))
				p.snapshots = append(p.snapshots[:i:i], p.snapshots[i+1:]...)
			case n == 4 && len(p.snapshots) > 0 && !running:
				noError(t, from.Restore(ctx, p.vol.At(h.pick(p.snapshots))))
			}
			p.cut = h.rand.Int64N(2) * (1 + h.rand.Int64N(60_000))
			_, sending, receiving := p.run(ctx)
			if (sending != nil || receiving != nil) && !errors.Is(sending, errCut) {
				t.Fatalf("send: %v, receive: %v", sending, receiving)
			}
			if running {
				container(t, mounted.RootFS, m, h.script())
				noError(t, from.UnmountVolume(ctx, p.vol))
			}
		}
		p.cut = 0
		p.send(t)
		p.arrived(t)
		nothingLeft(t, from)
		nothingLeft(t, to)
	})
}
