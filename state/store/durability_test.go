package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/state"
)

// files returns the files in dir that match, sorted.
func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return found
}

const closedSegments = "0*-0*"

// overwrite puts rubbish into a file, from the byte that find returns.
func overwrite(t *testing.T, path string, find func(content []byte) int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(content[find(content):], "rubbish, rubbish, rubbish")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[at] ^= 0x10
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func encodeMetadata(m metadata) (content []byte) {
	for _, word := range []uint64{metadataFormat, m.version, m.term, m.vote} {
		content = binary.LittleEndian.AppendUint64(content, word)
	}
	return content
}

// putMetadata writes metadata where the node would.
func putMetadata(t *testing.T, dir string, m metadata) {
	t.Helper()
	put(t, dir, metadataFiles[1-m.version%2], encodeMetadata(m))
}

// batches returns where the batches of an open segment begin, and where they end.
func batches(content []byte) []int {
	at := []int{8}
	for size := batchAt(content[8:]); size > 0; size = batchAt(content[at[len(at)-1]:]) {
		at = append(at, at[len(at)-1]+size)
	}
	return at
}

// lastBlock returns where the last block of a snapshot is.
func lastBlock(t *testing.T, content []byte) (from, to int) {
	t.Helper()
	const flags, head = frameHasContentSize | frameHasContentSum, 15
	if content[4]&(flags|frameHasDictionary|frameHasBlockSums) != flags {
		t.Fatalf("the node writes frames with flags %x", content[4])
	}
	for to = head; ; {
		size := int(binary.LittleEndian.Uint32(content[to:]))
		if size == 0 {
			return from, to
		}
		from = to + 4
		to = from + size&^blockIsPlain
	}
}

// relength makes the content of a block longer or shorter by changing one length in it.
func relength(by int) func(t *testing.T, content []byte, from, to int) {
	return func(t *testing.T, content []byte, from, to int) {
		t.Helper()
		block := content[from:to]
		was, _ := unpackedSize(block)
		for n := range block {
			block[n] += byte(by)
			if size, ok := unpackedSize(block); ok && size == was+uint64(by) {
				return
			}
			block[n] -= byte(by)
		}
		t.Fatal("no length in the block that can be changed")
	}
}

// A database that lost something is refused, with a sentence; it never starts empty
// or older than it was.
func TestDamageIsRefused(t *testing.T) {
	running := t.TempDir()
	s := open(t, running)
	populate(t, s)
	for n := range 300 { // enough for a snapshot
		must(t, s, SetSettings{Cluster: map[string]string{"n": fmt.Sprint(n)}})
	}
	want := s.View().Revision()
	// A copy of a store that does nothing is what kill -9 leaves.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	remove := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, path := range files(t, dir, pattern) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	truncate := func(pattern string, to int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			found := files(t, dir, pattern)
			if err := os.Truncate(found[len(found)-1], to); err != nil {
				t.Fatal(err)
			}
		}
	}
	inSnapshot := func(change func(t *testing.T, content []byte, from, to int)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := files(t, dir, "snapshot-*[0-9]")[0]
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			from, to := lastBlock(t, content)
			change(t, content, from, to)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		from   string
		damage func(t *testing.T, dir string)
		words  string // none when it must open as it was
	}{
		"closed as it should be": {running, func(*testing.T, string) {}, ""},
		"killed":                 {killed, func(*testing.T, string) {}, ""},
		"everything of the log is gone": {running, func(t *testing.T, dir string) {
			remove(closedSegments)(t, dir)
			remove("metadata*")(t, dir)
			remove("snapshot-*")(t, dir)
		}, "its log is gone"},
		"everything is gone but the mark": {running, func(t *testing.T, dir string) {
			remove(closedSegments)(t, dir)
			remove("metadata*")(t, dir)
			remove("snapshot-*")(t, dir)
			remove(identityFile)(t, dir)
		}, "its log is gone"},
		"nobody's":             {running, remove(identityFile), identityFile + " is gone"},
		"the metadata is gone": {running, remove("metadata*"), "its metadata is gone"},
		"the newer metadata is gone": {running, func(t *testing.T, dir string) {
			putMetadata(t, dir, metadata{version: 3, term: 1})
		}, "metadata2 has version 0, and not the one before 3"},
		"the metadata is older than the entries": {running, func(t *testing.T, dir string) {
			putMetadata(t, dir, metadata{version: 1, term: 0})
		}, "its metadata is of term 0, and its entries of term 1"},
		"the metadata went back": {running, func(t *testing.T, dir string) {
			putMetadata(t, dir, metadata{version: 3, term: 5})
			putMetadata(t, dir, metadata{version: 4, term: 4})
		}, "went back from term 5 to term 4"},
		"the metadata's format is overwritten": {running, func(t *testing.T, dir string) {
			overwrite(t, files(t, dir, "metadata1")[0], func([]byte) int { return 0 })
		}, "metadata1 has format"},
		"a version is another": {running, func(t *testing.T, dir string) { flip(t, files(t, dir, "metadata1")[0], 8) }, "and not the one before"},
		"a version has no place": {running, func(t *testing.T, dir string) {
			putMetadata(t, dir, metadata{version: 2, term: 1})
			put(t, dir, "metadata1", encodeMetadata(metadata{version: 2, term: 1}))
		}, "which does not belong there"},
		"metadata is too long": {running, truncate("metadata1", 40), "has 40 bytes instead of 32"},
		"a segment is missing": {running, func(t *testing.T, dir string) {
			remove("snapshot-*")(t, dir)
			_ = os.Remove(files(t, dir, closedSegments)[0])
		}, "the entries before 2 are gone"},
		"a segment has another's entries": {running, func(t *testing.T, dir string) {
			found := files(t, dir, closedSegments)
			if err := os.Rename(found[len(found)-1], filepath.Join(dir, "0000000000000257-0000000000000300")); err != nil {
				t.Fatal(err)
			}
		}, "instead of 44"},
		"killed, more behind a torn segment": {killed, func(t *testing.T, dir string) {
			name := files(t, dir, "open-*")[0]
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "open-9"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			overwrite(t, name, func(c []byte) int { b := batches(c); return b[len(b)-2] + 40 })
		}, "there is more in open-9"},
		"killed, a segment is of another format": {killed, func(t *testing.T, dir string) { flip(t, files(t, dir, "open-*")[0], 0) }, "which is not known here"},
		"the newest segment is gone": {running, func(t *testing.T, dir string) {
			found := files(t, dir, closedSegments)
			_ = os.Remove(found[len(found)-1])
		}, "now it ends at"},
		"the newest segment is cut short": {running, truncate(closedSegments, 100_000), "is unreadable from byte"},
		"the newest segment is overwritten": {running, func(t *testing.T, dir string) {
			found := files(t, dir, closedSegments)
			overwrite(t, found[len(found)-1], func(c []byte) int { return len(c) / 2 })
		}, "is unreadable from byte"},
		"a byte of a snapshot is another": {running, inSnapshot(func(_ *testing.T, content []byte, _, to int) {
			content[to-1]++ // a block ends with bytes as they are
		}), "the log cannot be read: raft_start(): io: LZ4F_decompress ERROR_contentChecksum_invalid"},
		"a snapshot is overwritten where the size of a block is": {running, inSnapshot(func(_ *testing.T, content []byte, from, _ int) {
			copy(content[from-4:], "rubbish")
		}), "is cut short"},
		"a snapshot is overwritten with a shorter length": {running, inSnapshot(relength(-1)), "holds something else than it says"},
		// The node would wait for room without end.
		"a snapshot is overwritten with a longer length": {running, inSnapshot(relength(1)), "holds something else than it says"},
		"a snapshot is overwritten with a length beyond its block": {running, inSnapshot(func(_ *testing.T, content []byte, from, to int) {
			copy(content[from:to], bytes.Repeat([]byte{255}, to-from))
		}), "holds something else than it says"},
		"a snapshot is cut short":                  {running, truncate("snapshot-*[0-9]", 1000), "is cut short"},
		"the snapshots are gone, the log is whole": {running, remove("snapshot-*"), ""},
		"killed, open segments are gone":           {killed, remove("open-*"), "now it ends at"},
		"killed, an open segment is cut short": {killed, func(t *testing.T, dir string) {
			if err := os.Truncate(files(t, dir, "open-*")[0], 100_000); err != nil {
				t.Fatal(err)
			}
		}, "has 100000 bytes of 8388608"},
		// A member that joined has its log as one batch, and no mark before a segment is closed.
		"killed, an open segment is cut short in its first batch": {killed, func(t *testing.T, dir string) {
			put(t, dir, markFile, nil)
			if err := os.Truncate(files(t, dir, "open-*")[0], segmentHead+24); err != nil {
				t.Fatal(err)
			}
		}, "has 32 bytes of 8388608"},
		"killed, an open segment is cut short before its first batch": {killed, func(t *testing.T, dir string) {
			put(t, dir, markFile, nil)
			if err := os.Truncate(files(t, dir, "open-*")[0], segmentHead); err != nil {
				t.Fatal(err)
			}
		}, "has 8 bytes of 8388608"},
		"killed while an open segment was being prepared": {killed, func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "open-9"), make([]byte, 1_303_424), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"killed, damage before the end": {killed, func(t *testing.T, dir string) {
			overwrite(t, files(t, dir, "open-*")[0], func(c []byte) int { b := batches(c); return b[len(b)/2] + 40 })
		}, "there is more behind"},
		"killed, the last commit is torn": {killed, func(t *testing.T, dir string) {
			overwrite(t, files(t, dir, "open-*")[0], func(c []byte) int { b := batches(c); return b[len(b)-2] + 40 })
		}, "now it ends at"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(tc.from)); err != nil {
				t.Fatal(err)
			}
			tc.damage(t, dir)
			s, err := Open(t.Context(), Config{Dir: dir, Member: self})
			if err == nil {
				defer func() { _ = s.Close() }()
			}
			switch {
			case tc.words == "" && err != nil:
				t.Errorf("open: %v", err)
			case tc.words == "" && s.View().Revision() != want:
				t.Errorf("revision %d; want %d", s.View().Revision(), want)
			case tc.words != "" && err == nil:
				t.Errorf("opened at revision %d; want an error: … %s …", s.View().Revision(), tc.words)
			case tc.words != "" && (!strings.Contains(err.Error(), "damaged or incomplete") || !strings.Contains(err.Error(), tc.words)):
				t.Errorf("open: %v; want: … damaged or incomplete … %s …", err, tc.words)
			}
		})
	}
}

// childDir makes the test binary a process that writes to the store in that
// directory until it is killed: TestMain asks for it.
const childDir = "MUSTER_STORE_TEST_CHILD"

// child writes and says what was acknowledged.
func child(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Member: self})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("k%d-%d-%d", os.Getpid(), w, n)
				_, err := s.Apply(ctx, newInstance(name))
				out.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("acknowledged", name)
				out.Unlock()
			}
		}()
	}
	select {}
}

// What was acknowledged is there after kill -9, at any moment.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		seen := 0
		for lines.Scan() {
			name, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
			if !ok {
				t.Fatalf("round %d: the child says %q", round, lines.Text())
			}
			acknowledged[name] = true
			// After the kill, read on: what had been said before it was acknowledged too.
			if seen++; seen == 150+70*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		s := open(t, dir)
		v := s.View()
		for name := range acknowledged {
			if _, err := v.Instance("default", name); err != nil {
				t.Fatalf("round %d: %s was acknowledged and is lost: %v", round, name, err)
			}
		}
		for _, i := range v.Instances("") {
			if intent, err := v.Intent(SubjectInstance, "default", i.Name); err != nil || intent.ID != "create-"+i.Name {
				t.Errorf("round %d: %s is half made: %v, %v", round, i.Name, intent, err)
			}
		}
		consistent(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes survived 5 kills", len(acknowledged))
}

// dialSocket makes the test binary a process that talks to a node's socket.
const dialSocket = "MUSTER_STORE_TEST_DIAL"

// stranger reports whether the node at the address answers this process.
func stranger(address string) {
	conn, err := net.DialTimeout("unix", address, time.Second)
	if err != nil {
		fmt.Println("refused at once")
		return
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	// The handshake, and a request for the leader.
	_, err = conn.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	answer := make([]byte, 64)
	n := 0
	if err == nil {
		n, err = conn.Read(answer)
	}
	if timeout, ok := errors.AsType[net.Error](err); n > 0 || ok && timeout.Timeout() {
		fmt.Println("answered", n, "bytes,", err)
		return
	}
	fmt.Println("refused:", err)
}

// The node's socket has no permissions to set, so it must not talk to other
// processes: they could read and write everything.
func TestOtherProcessesAreRefused(t *testing.T) {
	s := freshStore(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), dialSocket+"="+s.seat.Load().node.socket)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "refused") {
		t.Errorf("a stranger was %s (%v); want refused", out, err)
	}
}

// The database is for its owner only.
func TestFilesAreTheOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "database")
	s := open(t, dir)
	must(t, s, AddToken{Token: state.Token{ID: "t"}})
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v; want nothing for others", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
