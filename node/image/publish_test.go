package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"muster/state"
)

var shifted = IDMap{
	UIDs: []IDRange{{Inside: 0, Outside: 100_000, Size: 65_536}},
	GIDs: []IDRange{{Inside: 0, Outside: 100_000, Size: 65_536}},
}

var published = Metadata{Architecture: "x86_64", CreationDate: 1_700_000_000, Properties: map[string]string{"os": "test"}}

// What is published from a shifted tree and unpacked elsewhere is the same tree
// with the container's own ids.
func TestAPublishedTreeComesBack(t *testing.T) {
	needsRoot(t)
	want := facts(t, allSorts(t, 0))
	for _, c := range []Compression{"", Gzip, Zstd, XZ, Bzip2, LZMA, None, "gzip --rsyncable", "xz -1", "zstd -19 --long", "lzma -0", "bzip2 -9"} {
		t.Run("compressed by "+string(c), func(t *testing.T) {
			if name, options := c.split(); name == Bzip2 || name == LZMA || len(options) > 0 {
				needsProgram(t, compressing[name][0])
			}
			tree := allSorts(t, 100_000)
			must(t, unix.Mknod(filepath.Join(tree, "whiteout"), unix.S_IFCHR|0o666, 0))
			must(t, unix.Mknod(filepath.Join(tree, "socket"), unix.S_IFSOCK|0o666, 0))
			for _, name := range []string{"whiteout", "socket"} {
				must(t, os.Lchown(filepath.Join(tree, name), 100_000, 100_000))
			}
			must(t, os.Chtimes(tree, timeOf(want["."]), timeOf(want["."])))
			s := openStore(t)
			var read int64
			info, err := s.Publish(t.Context(), PublishSpec{RootFS: tree, IDs: shifted, Metadata: published, Compression: c, Progress: func(n int64) { read = n }})
			must(t, err)
			if read < 20<<20 {
				t.Errorf("progress ended at %d; want the bytes of all files", read)
			}

			// Another member takes the file in as it takes in any upload.
			files, err := s.Export(info.Fingerprint)
			must(t, err)
			defer files.Close()
			other := openStore(t)
			taken, err := other.Import(t.Context(), ImportSpec{Next: Parts(Part{files[0].Role, files[0]}), Fingerprint: info.Fingerprint})
			must(t, err)
			if diff := cmp.Diff(info, taken); diff != "" {
				t.Errorf("Publish and Import say different things:\n%s", diff)
			}
			out := filepath.Join(t.TempDir(), "out")
			must(t, other.Unpack(t.Context(), taken.Fingerprint, out, nil))
			if diff := cmp.Diff(want, facts(t, filepath.Join(out, "rootfs"))); diff != "" {
				t.Errorf("the root file system differs (-published +unpacked):\n%s", diff)
			}
			if got, err := ReadMetadata(out); err != nil || !cmp.Equal(got, published) {
				t.Errorf("ReadMetadata = %+v, %v; want %+v", got, err, published)
			}
		})
	}
}

func timeOf(f fact) time.Time { return time.Unix(f.Seconds, 0) }

func TestTheSameTreeGivesTheSameImage(t *testing.T) {
	needsRoot(t)
	for _, c := range []Compression{Gzip, Zstd, XZ, LZMA, "gzip -9", "xz -1"} {
		var fingerprints []string
		for range 2 {
			info, err := openStore(t).Publish(t.Context(), PublishSpec{RootFS: allSorts(t, 0), Metadata: published, Compression: c})
			must(t, err)
			fingerprints = append(fingerprints, info.Fingerprint)
		}
		if fingerprints[0] != fingerprints[1] {
			t.Errorf("%s: fingerprints %v; want the same", c, fingerprints)
		}
	}
}

func TestTemplatesArePublished(t *testing.T) {
	needsRoot(t)
	templates := t.TempDir()
	must(t, os.WriteFile(filepath.Join(templates, "hosts.tpl"), []byte("{{ instance.name }}"), 0o600))
	must(t, os.Symlink("/etc/shadow", filepath.Join(templates, "theirs.tpl")))
	withTemplate := func(name string) Metadata {
		m := published
		m.Templates = map[string]Template{"/etc/hosts": {When: []Trigger{TriggerStart}, Template: name}}
		return m
	}
	s := openStore(t)
	info, err := s.Publish(t.Context(), PublishSpec{RootFS: t.TempDir(), Metadata: withTemplate("hosts.tpl"), TemplatesDir: templates})
	must(t, err)
	out := filepath.Join(t.TempDir(), "out")
	must(t, s.Unpack(t.Context(), info.Fingerprint, out, nil))
	if text, err := os.ReadFile(filepath.Join(out, "templates/hosts.tpl")); err != nil || string(text) != "{{ instance.name }}" {
		t.Errorf("hosts.tpl = %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(out, "templates/theirs.tpl")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a symbolic link was published: %v", err)
	}
	_, err = s.Publish(t.Context(), PublishSpec{RootFS: t.TempDir(), Metadata: withTemplate("other.tpl"), TemplatesDir: templates})
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "no templates/other.tpl") {
		t.Errorf("Publish without a template = %v; want it named", err)
	}
}

func TestWhatCannotBePublishedLeavesNothing(t *testing.T) {
	needsRoot(t)
	tree := t.TempDir()
	must(t, os.Chown(tree, 100_000, 100_000))
	must(t, os.WriteFile(filepath.Join(tree, "theirs"), nil, 0o600))
	full := smallDisk(t, "1m")
	noise := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(noise, 0o755))
	random, err := os.Open("/dev/urandom")
	must(t, err)
	defer random.Close()
	data := make([]byte, 3<<20)
	_, err = random.Read(data)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(noise, "noise"), data, 0o600))

	for name, tc := range map[string]struct {
		gone bool
		dir  string
		spec PublishSpec
		kind error
		want string
	}{
		"an owner that the container does not have": {false, "", PublishSpec{RootFS: tree, IDs: shifted, Metadata: published}, state.ErrConflict, `"rootfs/theirs" belongs to 0:0`},
		"metadata without architecture":             {false, "", PublishSpec{RootFS: tree}, state.ErrInvalid, "architecture is missing"},
		"a compression that nobody knows":           {false, "", PublishSpec{RootFS: tree, Metadata: published, Compression: "rar"}, state.ErrInvalid, `"rar"`},
		"a caller that has gone":                    {true, "", PublishSpec{RootFS: tree, Metadata: published}, context.Canceled, ""},
		"a full disk":                               {false, full, PublishSpec{RootFS: noise, Metadata: published}, state.ErrConflict, "no space left on device"},
		"a full disk behind another program":        {false, full, PublishSpec{RootFS: noise, Metadata: published, Compression: XZ}, state.ErrConflict, "no space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, func(c *Config) {
				if tc.dir != "" {
					c.Dir = filepath.Join(tc.dir, "images")
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.gone {
				cancel()
			}
			_, err := s.Publish(ctx, tc.spec)
			if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Publish = %v; want %v and %q", err, tc.kind, tc.want)
			}
			wantNothingHeld(t, s)
		})
	}
}

// A container may change its tree while it is read. Nothing it does leads the
// packer out of the tree.
func TestPublishFollowsNoLink(t *testing.T) {
	needsRoot(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	tree := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(tree, "dir")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(tree, "file")))
	s := openStore(t)
	info, err := s.Publish(t.Context(), PublishSpec{RootFS: tree, Metadata: published, Compression: None})
	must(t, err)
	data, err := os.ReadFile(s.path(info.Fingerprint))
	must(t, err)
	if strings.Contains(string(data), "rootfs/dir/secret") || strings.Contains(string(data), "\x00secret\x00") {
		t.Error("a file outside of the tree was published")
	}
	if _, err := s.Publish(t.Context(), PublishSpec{RootFS: filepath.Join(tree, "dir"), Metadata: published}); err == nil {
		t.Error("a tree that is a symbolic link was published")
	}
}
