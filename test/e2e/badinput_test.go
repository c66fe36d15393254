package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// raw is a body that is sent as it is.
func raw(text string) io.Reader { return strings.NewReader(text) }

// trace is all that a refused request could have left: names of things, rows of
// intents, files of images and volumes, mounts.
func trace(t *testing.T, m *lab.Member) []string {
	t.Helper()
	var found []string
	for _, path := range []string{
		"/1.0/instances", "/1.0/profiles", "/1.0/networks", "/1.0/storage-pools", "/1.0/images", "/1.0/images/aliases", "/1.0/certificates", "/1.0/projects",
	} {
		found = append(found, decode[[]string](t, mustGet(t, m, path))...)
	}
	found = append(found, "intents: "+m.Run("musterd", "sql", "SELECT count(*) FROM intents"))
	for _, dir := range []string{"images", "storage-pools", "containers", "networks"} {
		err := filepath.WalkDir(filepath.Join(m.Dir, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			// What is inside of a volume is its container's business.
			if strings.Contains(path, "/rootfs/") {
				return fs.SkipDir
			}
			// The files of the console and the locks come and go with the daemon's work.
			if entry.IsDir() || dir == "images" {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// unchanged checks that what a test does leaves nothing behind.
func unchanged(t *testing.T, m *lab.Member, do func()) {
	t.Helper()
	before := trace(t, m)
	do()
	eventually(t, func() string { return cmp.Diff(before, trace(t, m)) })
}

type refusal struct {
	method, path string
	body         any
	code         int
	// want is part of the sentence.
	want string
}

func refuse(t *testing.T, m *lab.Member, rows map[string]refusal) {
	t.Helper()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			unchanged(t, m, func() {
				answer, err := m.Request(t.Context(), row.method, row.path, row.body, http.Header{"Content-Type": {"application/json"}})
				if err != nil || answer.Code != row.code || !strings.Contains(answer.Error, row.want) {
					t.Errorf("%s %s answered %d %q, %v; want %d and %q", row.method, row.path, answer.Code, answer.Error, err, row.code, row.want)
				}
			})
		})
	}
}

type object = map[string]any

func empty(name string) object {
	return object{"name": name, "source": object{"type": "none"}}
}

func with(base object, key string, value any) object {
	changed := maps.Clone(base)
	changed[key] = value
	return changed
}

// Every input is checked before anything is touched, and the sentence says what to
// change.
func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/instances", empty("c1")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/instances/c1/snapshots", object{"name": "s1"}); err != nil {
		t.Fatal(err)
	}
	const post, put, patch, get, del = http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodGet, http.MethodDelete

	t.Run("names", func(t *testing.T) {
		rows := map[string]refusal{}
		for what, name := range map[string]string{
			"with a slash": "a/b", "with a colon": "a:b", "with a comma": "a,b", "with a blank": "a b", "of digits": "1234", "with an underscore": "a_b",
			"of 65 characters": strings.Repeat("a", 65), "that begin with a hyphen": "-a", "that end with a hyphen": "a-", "with a dot": "a.b", "not ASCII": "ä",
			"with a NUL": "a\x00b", "of dots": "..",
		} {
			rows["instances "+what] = refusal{post, "/1.0/instances", empty(name), 400, "name"}
			if what != "of digits" && what != "that end with a hyphen" {
				rows["rename to one "+what] = refusal{post, "/1.0/instances/c1", object{"name": name}, 400, "name"}
			}
		}
		for what, name := range map[string]string{"empty": "", "with a slash": "a/b", "of dots": ".."} {
			rows["profiles "+what] = refusal{post, "/1.0/profiles", object{"name": name}, 400, "name"}
			rows["pools "+what] = refusal{post, "/1.0/storage-pools", object{"name": name, "driver": "dir"}, 400, "name"}
			rows["networks "+what] = refusal{post, "/1.0/networks", object{"name": name}, 400, "name"}
			if name != "" { // a name is made up
				rows["snapshots "+what] = refusal{post, "/1.0/instances/c1/snapshots", object{"name": name}, 400, "name"}
			}
		}
		rows["networks too long for an interface"] = refusal{post, "/1.0/networks", object{"name": "abcdefghijklmnop"}, 400, "name"}
		rows["a name that is taken"] = refusal{post, "/1.0/instances", empty("c1"), 409, "c1"}
		rows["a snapshot's that is taken"] = refusal{post, "/1.0/instances/c1/snapshots", object{"name": "s1"}, 409, "s1"}
		rows["a profile's that is taken"] = refusal{post, "/1.0/profiles", object{"name": "default"}, 409, "default"}
		refuse(t, m, rows)
	})

	t.Run("keys and devices", func(t *testing.T) {
		config := func(key, value string) object { return with(empty("c2"), "config", object{key: value}) }
		device := func(options object) object { return with(empty("c2"), "devices", object{"d1": options}) }
		refuse(t, m, map[string]refusal{
			"a misspelt key":              {post, "/1.0/instances", config("limits.memroy", "1GiB"), 400, "limits.memory"},
			"a misspelt key in a change":  {patch, "/1.0/instances/c1", object{"config": object{"security.nestin": "true"}}, 400, "security.nesting"},
			"a misspelt key of a profile": {post, "/1.0/profiles", object{"name": "p1", "config": object{"boot.autostrat": "true"}}, 400, "boot.autostart"},
			"a misspelt key of the server": {
				patch, "/1.0", object{"config": object{"core.htps_address": "127.0.0.1:1"}}, 400, "core.https_address",
			},
			"a misspelt key of a network":     {post, "/1.0/networks", object{"name": "n1", "config": object{"ipv4.adress": "none"}}, 400, "ipv4.address"},
			"a misspelt key of a pool":        {post, "/1.0/storage-pools", object{"name": "p1", "driver": "dir", "config": object{"sorce": "/x"}}, 400, "source"},
			"a size with a bad unit":          {post, "/1.0/instances", config("limits.memory", "1GX"), 400, "limits.memory"},
			"a negative size":                 {post, "/1.0/instances", config("limits.memory", "-1GiB"), 400, "limits.memory"},
			"a count that is a word":          {post, "/1.0/instances", config("limits.processes", "many"), 400, "limits.processes"},
			"processors that are none":        {post, "/1.0/instances", config("limits.cpu", "0-"), 400, "limits.cpu"},
			"a truth that is neither":         {post, "/1.0/instances", config("security.nesting", "perhaps"), 400, "security.nesting"},
			"a device of no known type":       {post, "/1.0/instances", device(object{"type": "dsik"}), 400, "disk"},
			"a device without type":           {post, "/1.0/instances", device(object{"path": "/x"}), 400, "type"},
			"a misspelt option":               {post, "/1.0/instances", device(object{"type": "disk", "source": "/tmp", "pth": "/mnt"}), 400, "path"},
			"a disk without path":             {post, "/1.0/instances", device(object{"type": "disk", "source": "/tmp"}), 400, "path"},
			"a disk of a pool that is not":    {post, "/1.0/instances", with(empty("c2"), "devices", object{"root": object{"type": "disk", "path": "/", "pool": "nopool"}}), 404, "nopool"},
			"a second root disk":              {post, "/1.0/instances", device(object{"type": "disk", "path": "/", "pool": "default"}), 400, "one root disk"},
			"a name that begins with a digit": {post, "/1.0/instances", empty("12c"), 400, "begins with a digit"},
			"a nic of a network that is not":  {post, "/1.0/instances", device(object{"type": "nic", "network": "nonet"}), 404, "nonet"},
			"an address that is none":         {post, "/1.0/instances", device(object{"type": "nic", "nictype": "p2p", "hwaddr": "zz"}), 400, "hwaddr"},
			"a proxy from nowhere":            {post, "/1.0/instances", device(object{"type": "proxy", "listen": "tcp:1", "connect": "tcp:127.0.0.1:1"}), 400, "listen"},
			"a profile that is not":           {post, "/1.0/instances", with(empty("c2"), "profiles", []string{"nope"}), 404, "nope"},
			"an image that is not":            {post, "/1.0/instances", object{"name": "c2", "source": object{"type": "image", "alias": "nope"}}, 404, "nope"},
			"a source of no known type":       {post, "/1.0/instances", object{"name": "c2", "source": object{"type": "imgae"}}, 400, "image"},
			"an instance of no known type":    {post, "/1.0/instances", with(empty("c2"), "type", "containr"), 400, "container"},
			"a virtual machine":               {post, "/1.0/instances", with(empty("c2"), "type", "virtual-machine"), 400, "virtual"},
			"a pool of no known driver":       {post, "/1.0/storage-pools", object{"name": "p1", "driver": "brtfs"}, 400, "btrfs"},
			"a network of no known type":      {post, "/1.0/networks", object{"name": "n1", "type": "brigde"}, 400, "bridge"},
			"a subnet that is none":           {post, "/1.0/networks", object{"name": "n1", "config": object{"ipv4.address": "10.0.0.300/24"}}, 400, "ipv4.address"},
			"a state of no known action":      {put, "/1.0/instances/c1/state", object{"action": "satrt"}, 400, "start"},
			"an address to listen on of no":   {patch, "/1.0", object{"config": object{"core.https_address": "nowhere"}}, 400, "core.https_address"},
			"another machine's address":       {patch, "/1.0", object{"config": object{"core.https_address": "192.0.2.1:8443"}}, 409, "192.0.2.1"},
			"an expiry that is no time":       {post, "/1.0/instances/c1/snapshots", object{"name": "s2", "expires_at": "soon"}, 400, "soon"},
			"a line break in a value":         {post, "/1.0/instances", config("limits.cpu.allowance", "10%\nlxc.hook.start = /x"), 400, "limits.cpu.allowance"},
			"a volatile key of a new profile": {post, "/1.0/profiles", object{"name": "p1", "config": object{"volatile.uuid": "x"}}, 400, "volatile"},
		})
	})

	t.Run("bodies", func(t *testing.T) {
		refuse(t, m, map[string]refusal{
			"not JSON":                 {post, "/1.0/instances", raw("name=c2"), 400, "JSON"},
			"cut off":                  {post, "/1.0/instances", raw(`{"name": "c2", "sou`), 400, "JSON"},
			"with more behind":         {post, "/1.0/instances", raw(`{"name": "c2", "source": {"type": "none"}} {"x": 1}`), 400, "JSON"},
			"an array":                 {post, "/1.0/instances", raw(`[1]`), 400, ""},
			"none":                     {post, "/1.0/instances", raw(``), 400, ""},
			"a number for a name":      {post, "/1.0/instances", raw(`{"name": 7, "source": {"type": "none"}}`), 400, "name"},
			"a list for a map":         {post, "/1.0/instances", raw(`{"name": "c2", "config": ["a"], "source": {"type": "none"}}`), 400, "config"},
			"a number in the config":   {post, "/1.0/instances", raw(`{"name": "c2", "config": {"limits.cpu": 2}, "source": {"type": "none"}}`), 400, "config"},
			"words for a truth":        {post, "/1.0/instances", raw(`{"name": "c2", "ephemeral": "yes", "source": {"type": "none"}}`), 400, "ephemeral"},
			"deeper than any":          {post, "/1.0/instances", raw(strings.Repeat(`{"config":`, 100000)), 400, ""},
			"larger than any":          {post, "/1.0/profiles", raw(`{"name": "p1", "description": "` + strings.Repeat("x", 5<<20) + `"}`), 400, "larger than"},
			"a command that is empty":  {post, "/1.0/instances/c1/exec", object{"command": []string{}}, 400, "command"},
			"a command while stopped":  {post, "/1.0/instances/c1/exec", object{"command": []string{"true"}}, 400, "not running"},
			"a restore of what is not": {put, "/1.0/instances/c1", object{"restore": "nope"}, 404, "nope"},
			"a certificate of garbage": {post, "/1.0/certificates", object{"type": "client", "certificate": "Zm9v"}, 400, "certificate"},
			"a certificate of no type": {post, "/1.0/certificates", object{"type": "sever", "certificate": "Zm9v"}, 400, ""},
		})
	})

	t.Run("paths and queries", func(t *testing.T) {
		refuse(t, m, map[string]refusal{
			"an instance that is not":   {get, "/1.0/instances/nope", nil, 404, "nope"},
			"an operation that is not":  {get, "/1.0/operations/8e7b0cd7-0000-4000-8000-000000000000", nil, 404, ""},
			"an operation of no ID":     {get, "/1.0/operations/x", nil, 404, ""},
			"a recursion of no kind":    {get, "/1.0/instances?recursion=x", nil, 400, "recursion"},
			"a filter of no sense":      {get, "/1.0/instances?filter=name+eq", nil, 400, "filter"},
			"a project that is not":     {get, "/1.0/instances?project=nope", nil, 404, "nope"},
			"a target that is not":      {post, "/1.0/instances?target=nope", empty("c2"), 404, "nope"},
			"a method of no use":        {put, "/1.0/events", object{}, 405, "GET"},
			"a path that climbs":        {get, "/1.0/instances/../../etc", nil, 404, ""},
			"an image by too little":    {get, "/1.0/images/zz", nil, 404, ""},
			"the default profile":       {del, "/1.0/profiles/default", nil, 403, "default"},
			"a pool in use":             {del, "/1.0/storage-pools/default", nil, 409, "default"},
			"a file without path":       {get, "/1.0/instances/c1/files", nil, 400, "path"},
			"an export of what is not":  {get, "/1.0/images/0123456789ab/export", nil, 404, ""},
			"an unknown part of 1.0":    {get, "/1.0/nope", nil, 404, "/1.0/nope"},
			"a version that is not":     {get, "/2.0", nil, 404, "/2.0"},
			"a snapshot that is not":    {get, "/1.0/instances/c1/snapshots/nope", nil, 404, "nope"},
			"a member outside clusters": {get, "/1.0/cluster/members/nope", nil, 404, "nope"},
		})
	})

	t.Run("an ETag that is old", func(t *testing.T) {
		for _, path := range []string{
			"/1.0", "/1.0/instances/c1", "/1.0/profiles/default", "/1.0/networks/" + network(t, m), "/1.0/storage-pools/default", "/1.0/instances/c1/snapshots/s1",
			"/1.0/images/" + fingerprint(t, m), "/1.0/images/aliases/busybox",
		} {
			for _, method := range []string{put, patch} {
				t.Run(method+" "+path, func(t *testing.T) {
					before := mustGet(t, m, path)
					if before.Header.Get("ETag") == "" {
						t.Fatal("there is no ETag")
					}
					answer, err := m.Request(t.Context(), method, path, bytes.NewReader(before.Metadata), http.Header{"If-Match": {`"0000"`}, "Content-Type": {"application/json"}})
					if err != nil || answer.Code != http.StatusPreconditionFailed {
						t.Errorf("answered %d %q, %v; want 412", answer.Code, answer.Error, err)
					}
					if after := mustGet(t, m, path); after.Header.Get("ETag") != before.Header.Get("ETag") {
						t.Error("it has changed all the same")
					}
				})
			}
		}
	})

	t.Run("uploads", func(t *testing.T) { uploads(t, m) })
	t.Run("two at once", func(t *testing.T) { twoAtOnce(t, m) })
	t.Run("files", func(t *testing.T) { files(t, m) })
}

// network is the name of the one managed network.
func network(t *testing.T, m *lab.Member) string {
	t.Helper()
	for _, n := range decode[[]struct {
		Name    string
		Managed bool
	}](t, mustGet(t, m, "/1.0/networks?recursion=1")) {
		if n.Managed {
			return n.Name
		}
	}
	t.Fatal("there is no managed network")
	return ""
}

// fingerprint is the busybox image's.
func fingerprint(t *testing.T, m *lab.Member) string {
	t.Helper()
	return decode[struct{ Target string }](t, mustGet(t, m, "/1.0/images/aliases/busybox")).Target
}

// tarball makes an image of the given entries besides its metadata.
func tarball(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	metadata := []byte("architecture: x86_64\ncreation_date: 1700000000\n")
	add := func(header tar.Header, content []byte) {
		header.Size = int64(len(content))
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "metadata.yaml", Typeflag: tar.TypeReg, Mode: 0o644}, metadata)
	add(tar.Header{Name: "rootfs/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	for _, entry := range entries {
		add(entry, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// large makes an image with one file of so many bytes.
func large(t *testing.T, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	small := tarball(t)
	// All but the two empty blocks that end an archive.
	out.Write(small[:len(small)-1024])
	if err := w.WriteHeader(&tar.Header{Name: "rootfs/large", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// uploaded sends an image and returns how that ended: the refusal, or the failure of
// the operation.
func uploaded(t *testing.T, m *lab.Member, body io.Reader, header http.Header) (code int, sentence string) {
	t.Helper()
	sent := http.Header{"Content-Type": {"application/octet-stream"}, "X-Lxd-Filename": {"image.tar"}}
	maps.Copy(sent, header)
	answer, err := m.Request(t.Context(), http.MethodPost, "/1.0/images", body, sent)
	if err != nil {
		return 0, err.Error()
	}
	if answer.Code != http.StatusAccepted {
		return answer.Code, answer.Error
	}
	op := decode[struct {
		StatusCode int `json:"status_code"`
		Err        string
	}](t, mustGet(t, m, answer.Operation+"/wait"))
	return op.StatusCode, op.Err
}

func uploads(t *testing.T, m *lab.Member) {
	good := tarball(t)
	for name, row := range map[string]struct {
		body   []byte
		header http.Header
		want   string
	}{
		"that are no image":            {[]byte("hello"), nil, ""},
		"that are empty":               {nil, nil, ""},
		"that are cut off":             {good[:1000], nil, ""},
		"of another fingerprint":       {good, http.Header{"X-Lxd-Fingerprint": {strings.Repeat("0", 64)}}, "announced"},
		"that climb out":               {tarball(t, tar.Header{Name: "rootfs/../../evil", Typeflag: tar.TypeReg, Mode: 0o644}), nil, ".."},
		"that follow their own links":  {tarball(t, tar.Header{Name: "rootfs/out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, tar.Header{Name: "rootfs/out/evil", Typeflag: tar.TypeReg, Mode: 0o644}), nil, "rootfs/out"},
		"that link to the host":        {tarball(t, tar.Header{Name: "rootfs/out", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}), nil, "rootfs/out"},
		"without what makes an image":  {onlyReadme(t), nil, "metadata"},
		"with properties of no sense":  {good, http.Header{"X-Lxd-Properties": {"%zz"}}, "X-LXD-properties"},
		"with an alias that is taken":  {good, http.Header{"X-Lxd-Aliases": {"alias=busybox"}}, "busybox"},
		"with a profile that is not":   {good, http.Header{"X-Lxd-Profiles": {"profile=nope"}}, "nope"},
		"that are public or who knows": {good, http.Header{"X-Lxd-Public": {"perhaps"}}, "X-LXD-public"},
	} {
		t.Run(name, func(t *testing.T) {
			unchanged(t, m, func() {
				code, sentence := uploaded(t, m, bytes.NewReader(row.body), row.header)
				if code < 400 || code >= 500 || !strings.Contains(sentence, row.want) {
					t.Errorf("ended with %d %q; want a refusal with %q", code, sentence, row.want)
				}
			})
			if _, err := os.Lstat("/tmp/evil"); err == nil {
				t.Error("a file was made on the host")
			}
		})
	}
	t.Run("whose sender goes away", func(t *testing.T) {
		unchanged(t, m, func() {
			broken := io.MultiReader(bytes.NewReader(good[:700]), failing{})
			if code, _ := uploaded(t, m, broken, nil); code != 0 && code < 400 {
				t.Errorf("ended with %d", code)
			}
		})
	})
	t.Run("that are right, for comparison", func(t *testing.T) {
		if code, sentence := uploaded(t, m, bytes.NewReader(good), nil); code != 200 {
			t.Errorf("ended with %d %q; want 200", code, sentence)
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func onlyReadme(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: "README", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func twoAtOnce(t *testing.T, m *lab.Member) {
	codes := func(method, path string, body any, header http.Header) []int {
		var asking sync.WaitGroup
		found := make([]int, 2)
		for i := range found {
			asking.Go(func() {
				answer, err := m.Request(t.Context(), method, path, body, header)
				if err != nil {
					t.Error(err)
					return
				}
				found[i] = answer.Code
				if answer.Code == http.StatusAccepted {
					op, err := m.Request(t.Context(), http.MethodGet, answer.Operation+"/wait", nil, nil)
					if err != nil {
						t.Error(err)
						return
					}
					var ended struct {
						StatusCode int `json:"status_code"`
					}
					if err := json.Unmarshal(op.Metadata, &ended); err != nil || ended.StatusCode != 200 {
						t.Errorf("%s %s: the operation ended with %s", method, path, op.Metadata)
					}
				}
			})
		}
		asking.Wait()
		slices.Sort(found)
		return found
	}
	for round := range 15 {
		name := fmt.Sprintf("twin%d", round)
		if got := codes(http.MethodPost, "/1.0/instances", empty(name), nil); !slices.Equal(got, []int{202, 409}) {
			t.Errorf("two creators of %s got %v; want one 202 and one 409", name, got)
		}
		if _, err := m.Do(t.Context(), http.MethodDelete, "/1.0/instances/"+name, nil); err != nil {
			t.Error(err)
		}
	}
	for round := range 5 {
		etag := mustGet(t, m, "/1.0/profiles/default").Header.Get("ETag")
		body := object{"config": object{"user.round": fmt.Sprint(round)}}
		if got := codes(http.MethodPatch, "/1.0/profiles/default", body, http.Header{"If-Match": {etag}}); !slices.Equal(got, []int{200, 412}) {
			t.Errorf("two changes of the same version got %v; want one 200 and one 412", got)
		}
		etag = mustGet(t, m, "/1.0/instances/c1").Header.Get("ETag")
		body = object{"config": object{"user.round": fmt.Sprint(round)}, "profiles": []string{"default"}, "architecture": "x86_64"}
		if got := codes(http.MethodPut, "/1.0/instances/c1", body, http.Header{"If-Match": {etag}}); !slices.Equal(got, []int{202, 412}) {
			t.Errorf("two replacements of the same version got %v; want one 202 and one 412", got)
		}
	}
}

// files tries to reach the host through the file API of a container.
func files(t *testing.T, m *lab.Member) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := m.Launch(ctx, "jail"); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) {
		t.Helper()
		m.Muster("exec", "jail", "--", "sh", "-c", script)
	}
	sh("mkdir -p /root/d; ln -s " + secret + " /root/abs; ln -s ../../../../../../../.." + secret + " /root/rel; ln -s / /root/d/root; mkfifo /root/fifo")
	for _, path := range []string{
		secret, "/../../../../../../../../" + secret, "/root/abs", "/root/rel", "/root/d/root" + secret, "/proc/1/root" + secret, "/proc/self/root" + secret, "/root/fifo",
	} {
		answer, err := m.Request(ctx, http.MethodGet, "/1.0/instances/jail/files?path="+path, nil, nil)
		// Of a symbolic link its target is the content, by name.
		link := answer.Header.Get("X-Lxd-Type") == "symlink"
		if err != nil || !link && answer.Code < 400 || answer.Code >= 500 || bytes.Contains(answer.Metadata, []byte("of the host")) {
			t.Errorf("reading %s answered %d %q, %v; want a 4xx", path, answer.Code, answer.Metadata, err)
		}
	}
	for _, path := range []string{"/root/abs", "/root/rel", "/root/d/root" + secret, "/../../.." + secret} {
		_, err := m.Request(ctx, http.MethodPost, "/1.0/instances/jail/files?path="+path, raw("from inside"), http.Header{"X-Lxd-Type": {"file"}, "Content-Type": {"application/octet-stream"}})
		if err != nil {
			t.Error(err)
		}
		_, err = m.Request(ctx, http.MethodDelete, "/1.0/instances/jail/files?path="+path, nil, nil)
		if err != nil {
			t.Error(err)
		}
		if content, err := os.ReadFile(secret); err != nil || string(content) != "of the host" {
			t.Fatalf("after writing to %s the host's file is %q, %v", path, content, err)
		}
	}
	for program, want := range map[string]string{"/no/such/program": "127", "/etc/hostname": "126"} {
		op := decode[struct {
			Metadata struct {
				Return float64 `json:"return"`
			}
		}](t, mustWait(t, m, http.MethodPost, "/1.0/instances/jail/exec", object{"command": []string{program}, "record-output": true}))
		if got := fmt.Sprint(op.Metadata.Return); got != want {
			t.Errorf("running %s returned %s; want %s", program, got, want)
		}
	}
	answer, err := m.Request(ctx, http.MethodPost, "/1.0/instances/jail/exec", object{"command": []string{"sleep", "2"}, "wait-for-websocket": true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := m.Request(ctx, http.MethodGet, answer.Operation+"/websocket?secret=wrong", nil, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	})
	if err != nil || socket.Code != http.StatusForbidden {
		t.Errorf("a websocket with a wrong secret answered %d, %v; want 403", socket.Code, err)
	}
	if _, err := m.Request(ctx, http.MethodDelete, answer.Operation, nil, nil); err != nil {
		t.Error(err)
	}
	// While it is being deleted, nothing else happens to it.
	if _, err := m.Do(ctx, http.MethodPut, "/1.0/instances/jail/state", object{"action": "stop", "force": true}); err != nil {
		t.Fatal(err)
	}
	deleting, err := m.Request(ctx, http.MethodDelete, "/1.0/instances/jail", nil, nil)
	if err != nil || deleting.Code != http.StatusAccepted {
		t.Fatalf("delete: %d, %v", deleting.Code, err)
	}
	for _, row := range []refusal{
		{method: http.MethodPut, path: "/1.0/instances/jail/state", body: object{"action": "start"}},
		{method: http.MethodPost, path: "/1.0/instances/jail/snapshots", body: object{"name": "late"}},
		{method: http.MethodPatch, path: "/1.0/instances/jail", body: object{"config": object{"user.x": "y"}}},
	} {
		late, err := m.Request(ctx, row.method, row.path, row.body, nil)
		if err != nil || late.Code == http.StatusOK || late.Code >= 500 {
			t.Errorf("%s %s while it is deleted answered %d, %v; want a 4xx", row.method, row.path, late.Code, err)
		}
		if late.Code == http.StatusAccepted {
			op := decode[struct {
				StatusCode int `json:"status_code"`
			}](t, mustGet(t, m, late.Operation+"/wait"))
			if op.StatusCode == 200 {
				t.Errorf("%s %s succeeded while it was deleted", row.method, row.path)
			}
		}
	}
	mustGet(t, m, deleting.Operation+"/wait")
	eventually(t, func() string {
		if gone, err := m.Request(ctx, http.MethodGet, "/1.0/instances/jail", nil, nil); err != nil || gone.Code != http.StatusNotFound {
			return fmt.Sprintf("after the deletion it answers %d, %v", gone.Code, err)
		}
		return ""
	})
}

// mustWait sends a request and returns how its operation ended.
func mustWait(t *testing.T, m *lab.Member, method, path string, body any) lab.Answer {
	t.Helper()
	answer, err := m.Request(t.Context(), method, path, body, nil)
	if err != nil || answer.Code != http.StatusAccepted {
		t.Fatalf("%s %s: %d %q, %v", method, path, answer.Code, answer.Error, err)
	}
	return mustGet(t, m, answer.Operation+"/wait")
}

// A disk that is full while an image is taken in is a clear failure, and the space is
// free again afterwards.
func TestAFullDiskWhileImporting(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	images := filepath.Join(m.Dir, "images")
	m.Kill()
	m.Run("mount", "-t", "tmpfs", "-o", "size=140m,mode=0700", "muster-test", images)
	m.Up()
	code, sentence := uploaded(t, m, bytes.NewReader(large(t, 30<<20)), nil)
	if code < 400 || !strings.Contains(sentence, "space") {
		t.Errorf("an upload larger than the disk ended with %d %q; want a failure that says there is no space", code, sentence)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		left, err := filepath.Glob(filepath.Join(images, "*"))
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, path := range left {
			if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Size() > 0 {
				files++
			}
		}
		if files == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code, sentence := uploaded(t, m, bytes.NewReader(tarball(t)), nil); code != 200 {
		t.Errorf("a small image afterwards ended with %d %q; want 200", code, sentence)
	}
	if _, err := m.Do(t.Context(), http.MethodDelete, "/1.0/images/"+strings.TrimPrefix(decode[[]string](t, mustGet(t, m, "/1.0/images"))[0], "/1.0/images/"), nil); err != nil {
		t.Error(err)
	}
	m.Kill()
	m.Run("umount", images)
	m.Up()
}
