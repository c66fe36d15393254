package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// heap is a Place of plain directories that can begin a content from nothing
// and with what is there.
type heap struct {
	t    testing.TB
	dir  string
	open int
}

func newHeap(t testing.TB) *heap {
	h := &heap{t: t, dir: t.TempDir()}
	noError(t, os.MkdirAll(filepath.Join(h.dir, "content", nameRootFS), 0o755))
	noError(t, os.WriteFile(filepath.Join(h.dir, "secret"), []byte("secret"), 0o600))
	return h
}

func (h *heap) source() Source {
	return Source{RootFS: filepath.Join(h.dir, "content", nameRootFS), Dir: filepath.Join(h.dir, "content")}
}

func (h *heap) Expect(context.Context, []string) error { return nil }

func (h *heap) Begin(_ context.Context, c Content) (*Target, error) {
	target := &Target{RootFS: h.source().RootFS, Dir: h.source().Dir, Files: NewManifest()}
	path := filepath.Join(h.dir, "log")
	var err error
	switch c.Start {
	case FromItself:
		if target.Log, target.Files, err = OpenLog(path); err != nil {
			return nil, err
		}
	case FromNothing:
		noError(h.t, os.RemoveAll(filepath.Join(h.dir, "content")))
		noError(h.t, os.MkdirAll(target.RootFS, 0o755))
		if target.Log, err = CreateLog(path, target.Files); err != nil {
			return nil, err
		}
	default:
		return nil, refused("start %q", c.Start)
	}
	h.open++
	return target, nil
}

func (h *heap) Leave(context.Context, Content, *Target, bool) error {
	h.open--
	return nil
}

func (h *heap) End(context.Context) error { return nil }

// inventory tells what the heap has.
func (h *heap) inventory(ctx context.Context) *Inventory {
	i := &Inventory{}
	log, files, err := OpenLog(filepath.Join(h.dir, "log"))
	if errors.Is(err, os.ErrNotExist) {
		files, err = Scan(ctx, h.source(), nil)
		noError(h.t, err)
		log, err = CreateLog(filepath.Join(h.dir, "log"), files)
	}
	noError(h.t, err)
	noError(h.t, log.Close())
	target := &Target{RootFS: h.source().RootFS, Dir: h.source().Dir, Files: files}
	noError(h.t, SumPartial(ctx, target))
	i.Contents = []Have{{Name: Live, Token: "x", Files: files}}
	return i
}

// script writes a stream by hand.
type script struct {
	out *frameWriter
	buf bytes.Buffer
}

func newScript(names ...string) *script {
	s := &script{}
	s.out = newFrameWriter(&s.buf)
	head := []byte{version, byte(len(names))}
	for _, name := range names {
		head = appendString(head, name)
	}
	return s.frame(frameHello, head)
}

func (s *script) frame(kind byte, payload []byte) *script {
	_ = s.out.write(kind, payload) // into memory
	return s
}

func (s *script) content() *script {
	return s.frame(frameContent, append([]byte{byte(FromNothing)}, 0, 0, 0))
}

func (s *script) entry(e Entry) *script { return s.frame(frameEntry, e.append(nil)) }

func (s *script) root() *script {
	return s.content().entry(Entry{Path: nameRootFS, Kind: KindDir, Mode: 0o755, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
}

func (s *script) bytes() []byte {
	_ = s.out.flush() // into memory
	return s.buf.Bytes()
}

func own(e Entry) Entry {
	e.UID, e.GID = uint32(os.Getuid()), uint32(os.Getgid())
	return e
}

// No stream gets out of its directory, or past what a volume may be.
func TestRefusedStreams(t *testing.T) {
	dir := own(Entry{Path: "rootfs/d", Kind: KindDir, Mode: 0o755})
	link := own(Entry{Path: "rootfs/up", Kind: KindSymlink, Mode: 0o777, Target: "../.."})
	file := func(path string) Entry { return own(Entry{Path: path, Kind: KindFile, Size: 1 << 20}) }
	var zero Sum
	end := append([]byte{0}, zero[:]...)
	for name, s := range map[string]*script{
		"no frames":                     {out: newFrameWriter(io.Discard)},
		"no volume":                     newScript("s1"),
		"a volume that is not the last": newScript("", "s1"),
		"a name twice":                  newScript("s1", "s1", ""),
		"a content nobody announced":    newScript("").frame(frameContent, []byte{byte(FromNothing), 1, 'x', 0, 0}),
		"an unknown start":              newScript("").frame(frameContent, []byte{'?', 0, 0, 0}),
		"an end in the middle":          newScript("").root().frame(frameEnd, nil),
		"a path that climbs":            newScript("").root().entry(file("rootfs/../x")),
		"a path that is whole":          newScript("").root().entry(file("/etc/x")),
		"an empty part":                 newScript("").root().entry(file("rootfs//x")),
		"a dot":                         newScript("").root().entry(file("rootfs/./x")),
		"no path":                       newScript("").root().entry(file("")),
		"a zero byte":                   newScript("").root().entry(file("rootfs/a\x00b")),
		"a long part":                   newScript("").root().entry(file("rootfs/" + strings.Repeat("a", 256))),
		"a long path":                   newScript("").root().entry(file("rootfs" + strings.Repeat("/aaaaaaa", 3000))),
		"another tree":                  newScript("").root().entry(file("snapshots")),
		"a root that is a file":         newScript("").content().entry(file("rootfs")),
		"metadata that is a link":       newScript("").root().entry(own(Entry{Path: "metadata.yaml", Kind: KindSymlink, Target: "/etc/shadow"})),
		"templates that are a link":     newScript("").root().entry(own(Entry{Path: "templates", Kind: KindSymlink, Target: "/etc"})),
		"a directory that is not there": newScript("").root().entry(file("rootfs/none/x")),
		"through a link":                newScript("").root().entry(link).entry(file("rootfs/up/x")),
		"through a file":                newScript("").root().entry(file("rootfs/f")).frame(frameFile, end).entry(file("rootfs/f/x")),
		"a link to what is outside":     newScript("").root().entry(own(Entry{Path: "rootfs/l", Kind: KindLink, Target: "rootfs/../../secret"})),
		"a link to another tree":        newScript("").root().entry(own(Entry{Path: "rootfs/l", Kind: KindLink, Target: "metadata.yaml"})),
		"a link to a directory":         newScript("").root().entry(dir).entry(own(Entry{Path: "rootfs/l", Kind: KindLink, Target: "rootfs/d"})),
		"a link to nothing":             newScript("").root().entry(own(Entry{Path: "rootfs/l", Kind: KindLink, Target: "rootfs/none"})),
		"a link to itself":              newScript("").root().entry(own(Entry{Path: "rootfs/l", Kind: KindLink, Target: "rootfs/l"})),
		"removing the root":             newScript("").root().frame(frameRemove, []byte("rootfs")),
		"removing what climbs":          newScript("").root().frame(frameRemove, []byte("rootfs/../../secret")),
		"removing what is not there":    newScript("").root().frame(frameRemove, []byte("rootfs/none")),
		"attributes of nothing":         newScript("").root().frame(frameAttr, (&Entry{Path: "rootfs/none", Kind: KindDir}).append(nil)),
		"data of nothing":               newScript("").root().frame(frameData, make([]byte, 16)),
		"data off the pages":            newScript("").root().entry(file("rootfs/f")).frame(frameData, append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 1)),
		"data after the end":            newScript("").root().entry(file("rootfs/f")).frame(frameData, append([]byte{0, 0, 16, 0, 0, 0, 0, 0}, 1)),
		"data before the start":         newScript("").root().entry(file("rootfs/f")).frame(frameData, append([]byte{0, 0, 0, 0, 0, 0, 0, 0x80}, 1)),
		"an end of nothing":             newScript("").root().frame(frameFile, end),
		"a file that does not end":      newScript("").root().entry(file("rootfs/f")).entry(dir),
		"going on with nothing":         newScript("").root().entry(own(Entry{Path: "rootfs/f", Kind: KindFile, Size: 1 << 20, Done: page})),
		"a kind nobody knows":           newScript("").root().entry(own(Entry{Path: "rootfs/f", Kind: 'x'})),
		"an unknown file":               newScript("").root().entry(own(Entry{Path: "rootfs/f", Kind: KindUnknown})),
		"half a file":                   newScript("").root().entry(own(Entry{Path: "rootfs/f", Kind: KindPartial, Done: page, Size: page})),
		"another sum":                   newScript("").root().entry(file("rootfs/f")).frame(frameFile, end),
		"another digest":                newScript("").root().frame(frameDigest, zero[:]),
		"no root":                       newScript("").content().frame(frameDigest, zero[:]),
		"a frame nobody knows":          newScript("").root().frame('x', nil),
		"too little in a frame":         newScript("").root().frame(frameEntry, []byte{'f', 9, 'r'}),
		"too much in a frame":           newScript("").root().frame(frameEntry, append(dir.append(nil), 1)),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeap(t)
			_, err := Receive(t.Context(), bytes.NewReader(s.bytes()), h)
			if !errors.Is(err, state.ErrInvalid) && !errors.Is(err, ErrDamaged) {
				t.Errorf("Receive = %v, want ErrInvalid or ErrDamaged", err)
			}
			h.unharmed(t)
		})
	}
}

// unharmed fails the test if anything was written outside of the content.
func (h *heap) unharmed(t testing.TB) {
	t.Helper()
	if h.open != 0 {
		t.Errorf("%d contents were not left", h.open)
	}
	entries, err := os.ReadDir(h.dir)
	noError(t, err)
	for _, e := range entries {
		if n := e.Name(); n != "content" && n != "secret" && n != "log" {
			t.Errorf("%s was made", n)
		}
	}
	entries, err = os.ReadDir(filepath.Join(h.dir, "content"))
	noError(t, err)
	for _, e := range entries {
		if n := e.Name(); n != nameRootFS && n != nameMetadata && n != nameTemplates {
			t.Errorf("%s was made beside the root", n)
		}
	}
	if data, err := os.ReadFile(filepath.Join(h.dir, "secret")); err != nil || string(data) != "secret" {
		t.Errorf("the secret is %q (%v)", data, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(h.dir, "secret"), &st); err != nil || st.Nlink != 1 {
		t.Errorf("the secret has %d names (%v)", st.Nlink, err)
	}
}

// garden makes a few files of a source.
func garden(t testing.TB) Source {
	dir := t.TempDir()
	root := filepath.Join(dir, nameRootFS)
	noError(t, os.MkdirAll(filepath.Join(root, "a", "b"), 0o755))
	noError(t, os.WriteFile(filepath.Join(root, "a", "file"), []byte("one"), 0o640))
	noError(t, os.Link(filepath.Join(root, "a", "file"), filepath.Join(root, "a", "other")))
	noError(t, os.Symlink("file", filepath.Join(root, "a", "link")))
	noError(t, os.WriteFile(filepath.Join(root, "large"), bytes.Repeat([]byte("0123456789abcdef"), 40_000), 0o600))
	noError(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	noError(t, os.WriteFile(filepath.Join(dir, nameMetadata), []byte("x: y\n"), 0o600))
	f, err := os.Create(filepath.Join(root, "sparse"))
	noError(t, err)
	for _, at := range []int64{0, 5<<20 + 3, 9 << 20} {
		_, err = f.WriteAt([]byte("data"), at)
		noError(t, err)
	}
	noError(t, f.Truncate(12<<20+5))
	noError(t, f.Close())
	return Source{RootFS: root, Dir: dir}
}

func sent(t testing.TB, i *Inventory, src Source) ([]byte, Stats) {
	var buf bytes.Buffer
	s := NewSender(t.Context(), i, &buf, time.Now())
	noError(t, s.Begin([]string{Live}))
	noError(t, s.Content(Live, "x", src))
	stats, err := s.End()
	noError(t, err)
	return buf.Bytes(), stats
}

// Wherever the line is cut, what follows makes it whole.
func TestCutAnywhere(t *testing.T) {
	src := garden(t)
	whole, _ := sent(t, &Inventory{}, src)
	want := contents(t, src)
	for cut := 0; cut < len(whole); cut += 1 + len(whole)/150 {
		h := newHeap(t)
		if _, err := Receive(t.Context(), bytes.NewReader(whole[:cut]), h); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v, want ErrDamaged", cut, err)
		}
		rest, stats := sent(t, h.inventory(t.Context()), src)
		if len(rest)+cut > len(whole)+chunk+20_000 {
			t.Errorf("cut at %d, %d bytes of %d were sent again", cut, len(rest), len(whole))
		}
		if _, err := Receive(t.Context(), bytes.NewReader(rest), h); err != nil {
			t.Fatalf("cut at %d, then %+v: %v", cut, stats, err)
		}
		if got := contents(t, h.source()); got != want {
			t.Fatalf("cut at %d:\n%s\nwant\n%s", cut, got, want)
		}
		last, stats := sent(t, h.inventory(t.Context()), src)
		if stats.Files+stats.Removed > 0 {
			t.Errorf("cut at %d: once whole, %+v was sent again in %d bytes", cut, stats, len(last))
		}
	}
}

// A bit that changes anywhere is noticed.
func TestDamagedAnywhere(t *testing.T) {
	src := garden(t)
	whole, _ := sent(t, &Inventory{}, src)
	for at := 0; at < len(whole); at += 1 + len(whole)/300 {
		h := newHeap(t)
		broken := bytes.Clone(whole)
		broken[at] ^= 1 << (at % 8)
		if _, err := Receive(t.Context(), bytes.NewReader(broken), h); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d of byte %d: %v, want ErrDamaged", at%8, at, err)
		}
	}
}

// contents describes a source by its manifest: sums and attributes.
func contents(t testing.TB, src Source) string {
	files, err := Scan(t.Context(), src, nil)
	noError(t, err)
	var b strings.Builder
	for e := range files.all() {
		fmt.Fprintf(&b, "%s %c %o %d:%d %v %d %q %x %v\n", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.MTime, e.Size, e.Target, e.Sum[:4], e.Attrs)
	}
	return b.String()
}

// What changes in every possible way arrives as it is.
func TestChanges(t *testing.T) {
	src := garden(t)
	at := func(parts ...string) string { return filepath.Join(append([]string{src.RootFS}, parts...)...) }
	h := newHeap(t)
	for name, change := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(at("a", "file"), []byte("two"), 0o600) },
		func() error { return os.Chmod(at("a", "file"), 0o4711) },
		func() error { return os.Remove(at("a", "file")) },
		func() error { return os.Link(at("a", "other"), at("a", "b", "third")) },
		func() error { return os.Rename(at("a"), at("z")) },
		func() error { return errors.Join(os.Remove(at("z", "link")), os.Mkdir(at("z", "link"), 0o700)) },
		func() error { return os.WriteFile(at("z", "link", "in"), nil, 0o600) },
		func() error { return errors.Join(os.RemoveAll(at("z", "link")), os.Symlink("x", at("z", "link"))) },
		func() error { return os.Truncate(at("large"), 5000) },
		func() error { return os.Truncate(at("large"), 5<<20) },
		func() error { return os.Remove(filepath.Join(src.Dir, nameMetadata)) },
		func() error { return os.MkdirAll(filepath.Join(src.Dir, nameTemplates, "x"), 0o700) },
		func() error { return os.RemoveAll(at("z")) },
		func() error {
			// The same size and times, other data.
			var st unix.Stat_t
			if err := unix.Stat(at("large"), &st); err != nil {
				return err
			}
			f, err := os.OpenFile(at("large"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("changed"), 1<<20)
			return errors.Join(err, f.Close(), unix.UtimesNanoAt(unix.AT_FDCWD, at("large"), []unix.Timespec{st.Atim, st.Mtim}, 0))
		},
	} {
		noError(t, change())
		data, _ := sent(t, h.inventory(t.Context()), src)
		if _, err := Receive(t.Context(), bytes.NewReader(data), h); err != nil {
			t.Fatalf("change %d: %v", name, err)
		}
		if got, want := contents(t, h.source()), contents(t, src); got != want {
			t.Fatalf("change %d:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Whatever the log's end is, what it says before holds.
func TestLogCutAnywhere(t *testing.T) {
	src := garden(t)
	whole, _ := sent(t, &Inventory{}, src)
	h := newHeap(t)
	if _, err := Receive(t.Context(), bytes.NewReader(whole), h); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "log")
	data, err := os.ReadFile(path)
	noError(t, err)
	for cut := 0; cut <= len(data); cut++ {
		noError(t, os.WriteFile(path, data[:cut], 0o600))
		log, _, err := OpenLog(path)
		noError(t, err)
		noError(t, log.touch("rootfs"))
		noError(t, log.Close())
		log, files, err := OpenLog(path)
		noError(t, err)
		noError(t, log.Close())
		if e := files.get("rootfs"); e == nil || e.Kind != KindUnknown {
			t.Fatalf("cut at %d: what was written after is lost: %+v", cut, e)
		}
	}
}

// sealed puts right checksums on frames, so that the fuzzer gets past them:
// input is a row of kind, length of two bytes, payload.
func sealed(input []byte) []byte {
	var buf bytes.Buffer
	out := newFrameWriter(&buf)
	for len(input) >= 3 {
		n := min(int(input[1])<<8|int(input[2]), len(input)-3)
		_ = out.write(input[0], input[3:3+n]) // into memory
		input = input[3+n:]
	}
	_ = out.flush() // into memory
	return buf.Bytes()
}

// unsealed is the inverse of sealed.
func unsealed(t testing.TB, data []byte) []byte {
	in := newFrameReader(bytes.NewReader(data))
	var out []byte
	for {
		kind, payload, err := in.frame()
		if errors.Is(err, io.EOF) {
			return out
		}
		noError(t, err)
		payload = payload[:min(len(payload), 1<<16-1)]
		out = append(out, kind, byte(len(payload)>>8), byte(len(payload)))
		out = append(out, payload...)
	}
}

// bed is a garden small enough for a fuzzer.
func bed(t testing.TB) Source {
	dir := t.TempDir()
	root := filepath.Join(dir, nameRootFS)
	noError(t, os.MkdirAll(filepath.Join(root, "d"), 0o755))
	noError(t, os.WriteFile(filepath.Join(root, "d", "f"), []byte("one"), 0o640))
	noError(t, os.Link(filepath.Join(root, "d", "f"), filepath.Join(root, "d", "g")))
	noError(t, os.Symlink("f", filepath.Join(root, "l")))
	return Source{RootFS: root, Dir: dir}
}

func FuzzReceive(f *testing.F) {
	src := bed(f)
	whole, _ := sent(f, &Inventory{}, src)
	f.Add(unsealed(f, whole))
	f.Add(unsealed(f, newScript("").root().entry(own(Entry{Path: "rootfs/up", Kind: KindSymlink, Mode: 0o777, Target: "../.."})).entry(own(Entry{Path: "rootfs/up/x", Kind: KindDir})).bytes()))
	f.Add(unsealed(f, newScript("").root().entry(own(Entry{Path: "rootfs/d", Kind: KindDir, Mode: 0o755})).frame(frameRemove, []byte("rootfs/d")).bytes()))
	f.Fuzz(func(t *testing.T, input []byte) {
		h := newHeap(t)
		_, err := Receive(t.Context(), bytes.NewReader(sealed(input)), h)
		h.unharmed(t)
		if err != nil {
			// Whatever came, an honest stream makes it good.
			data, _ := sent(t, h.inventory(t.Context()), src)
			if _, err := Receive(t.Context(), bytes.NewReader(data), h); err != nil {
				t.Fatal(err)
			}
			if got, want := contents(t, h.source()), contents(t, src); got != want {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
		}
	})
}

func FuzzInventory(f *testing.F) {
	files, err := Scan(f.Context(), bed(f), nil)
	noError(f, err)
	var buf bytes.Buffer
	noError(f, (&Inventory{Image: files, Contents: []Have{{Name: "s1", Complete: true}, {Name: Live, Token: "x", Files: files}}}).Write(&buf))
	f.Add(unsealed(f, buf.Bytes()))
	f.Fuzz(func(t *testing.T, input []byte) {
		i, err := ReadInventory(bytes.NewReader(sealed(input)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		noError(t, i.Write(&again))
		j, err := ReadInventory(&again)
		noError(t, err)
		if len(i.Contents) != len(j.Contents) || i.Image != nil && i.Image.Digest() != j.Image.Digest() {
			t.Error("an inventory is not what was written")
		}
	})
}
