package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"muster/rpc/rest/api"
)

// furnished is a realm whose default profile has a root disk in a pool of plain
// directories.
func furnished(t testing.TB) *realm {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes volumes with owners of their own")
	}
	x := newRealm(t)
	x.local.must("POST /1.0/storage-pools", `{"name": "p", "driver": "dir"}`, nil)
	x.local.must("PATCH /1.0/profiles/default", `{"devices": {"root": {"type": "disk", "path": "/", "pool": "p"}}}`, nil)
	t.Cleanup(func() {
		if t.Failed() {
			return // what is half done can't be undone in order; newRealm takes down its mounts
		}
		var names []string
		x.local.must("GET /1.0/instances", "", &names)
		for _, url := range names {
			var inst api.Instance
			if x.local.must("GET "+url, "", &inst); inst.Status != "Stopped" {
				x.finish("PUT "+url+"/state", `{"action": "stop", "force": true}`)
			}
			x.finish("DELETE "+url, "")
		}
		x.local.must("PUT /1.0/profiles/default", "{}", nil)
		x.local.must("DELETE /1.0/storage-pools/p", "", nil)
	})
	return x
}

// finish makes a request whose operation must succeed, and returns the operation.
func (x *realm) finish(line, body string) api.Operation {
	x.t.Helper()
	got := x.local.must(line, body, nil)
	if got.status != http.StatusAccepted {
		x.t.Fatalf("%s: %d; want 202", line, got.status)
	}
	var op api.Operation
	x.local.must("GET "+got.Operation+"/wait", "", &op)
	if op.Status != "Success" {
		x.t.Fatalf("%s %s: %s: %s", line, body, op.Status, op.Err)
	}
	return op
}

func (x *realm) create(name string) {
	x.t.Helper()
	x.finish("POST /1.0/instances", fmt.Sprintf(`{"name": %q, "source": {"type": "none"}}`, name))
}

func (x *realm) instance(name string) api.Instance {
	x.t.Helper()
	var inst api.Instance
	x.local.must("GET /1.0/instances/"+name, "", &inst)
	return inst
}

func TestInstances(t *testing.T) {
	x := furnished(t)
	c := x.local
	x.finish("POST /1.0/instances", `{"name": "c1", "description": "first", "config": {"user.a": "1"}, "source": {"type": "none"}}`)
	inst := x.instance("c1")
	if inst.Status != "Stopped" || inst.StatusCode != api.Stopped || inst.Location != "none" || inst.Type != "container" || inst.Project != "default" ||
		inst.Description != "first" || inst.Config["user.a"] != "1" || !slices.Equal(inst.Profiles, []string{"default"}) {
		t.Errorf("created: %+v", inst)
	}
	if diff := cmp.Diff(map[string]string{"type": "disk", "path": "/", "pool": "p"}, inst.ExpandedDevices["root"]); diff != "" {
		t.Errorf("expanded root (-want +got):\n%s", diff)
	}
	for _, prefix := range []string{"instances", "containers"} {
		var urls []string
		c.must("GET /1.0/"+prefix, "", &urls)
		if !slices.Equal(urls, []string{"/1.0/" + prefix + "/c1"}) {
			t.Errorf("GET /1.0/%s: %v; want the prefix echoed", prefix, urls)
		}
	}
	x.finish("PUT /1.0/containers/c1/state", `{"action": "start"}`)
	if got := x.instance("c1"); got.Status != "Running" || got.StatusCode != api.Running {
		t.Errorf("started: %s %d; want Running 103", got.Status, got.StatusCode)
	}
	var running api.InstanceState
	c.must("GET /1.0/instances/c1/state", "", &running)
	if running.Status != "Running" || running.Pid <= 0 {
		t.Errorf("state %+v; want Running with a pid", running)
	}
	x.finish("PUT /1.0/instances/c1/state", `{"action": "freeze"}`)
	if got := x.instance("c1"); got.Status != "Frozen" || got.StatusCode != api.Frozen {
		t.Errorf("frozen: %s %d; want Frozen 110", got.Status, got.StatusCode)
	}
	x.finish("PUT /1.0/instances/c1/state", `{"action": "unfreeze"}`)
	x.finish("PUT /1.0/instances/c1/state", `{"action": "restart", "force": true}`)
	x.finish("PUT /1.0/instances/c1/state", `{"action": "stop", "timeout": 5}`)

	x.finish("POST /1.0/instances/c1", `{"name": "c2"}`)
	c.refused("GET /1.0/instances/c1", "", 404, `instance "c1" not found`)
	x.finish("POST /1.0/instances", `{"name": "c3", "source": {"type": "copy", "source": "c2"}}`)
	if got := x.instance("c3"); got.Config["user.a"] != "1" || !slices.Equal(got.Profiles, []string{"default"}) {
		t.Errorf("copy: %+v; want the source's configuration and profiles", got)
	}
	x.finish("PUT /1.0/instances", `{"state": {"action": "start"}}`)
	if x.instance("c2").Status != "Running" || x.instance("c3").Status != "Running" {
		t.Error("starting all left some stopped")
	}
	x.finish("PUT /1.0/instances", `{"state": {"action": "stop", "force": true}}`)
	x.finish("DELETE /1.0/instances/c2", "")
	var urls []string
	c.must("GET /1.0/instances", "", &urls)
	if !slices.Equal(urls, []string{"/1.0/instances/c3"}) {
		t.Errorf("after all: %v; want c3", urls)
	}
	op := x.finish("POST /1.0/instances", `{"source": {"type": "none"}}`)
	if len(op.Resources["instances"]) != 1 || len(op.Resources["instances"][0]) <= len("/1.0/instances/") {
		t.Errorf("an instance without a name: resources %v; want one made up", op.Resources)
	}
}

func TestInstanceLists(t *testing.T) {
	x := furnished(t)
	c := x.local
	x.create("c1")
	x.create("c2")
	x.finish("PUT /1.0/instances/c2/state", `{"action": "start"}`)
	x.finish("POST /1.0/instances/c1/snapshots", `{"name": "s1"}`)

	names := func(query string) []string {
		var all []api.InstanceFull
		c.must("GET /1.0/instances?"+query, "", &all)
		got := []string{}
		for _, inst := range all {
			got = append(got, inst.Name)
		}
		return got
	}
	for query, want := range map[string][]string{
		"recursion=1":                          {"c1", "c2"},
		"recursion=2":                          {"c1", "c2"},
		"recursion=1&filter=status+eq+Running": {"c2"},
		"recursion=1&filter=name+eq+%22c1%22+or+status+eq+frozen":  {"c1"},
		"recursion=2&filter=not+(name+eq+c1)":                      {"c2"},
		"recursion=1&filter=devices.root.pool+eq+p+and+name+eq+c2": {},
		"recursion=1&filter=expanded_devices.root.pool+eq+p":       {"c1", "c2"},
		"recursion=1&instance-type=container":                      {"c1", "c2"},
		"recursion=1&instance-type=virtual-machine":                {},
		"recursion=1&all-projects=true":                            {"c1", "c2"},
	} {
		if got := names(query); !slices.Equal(got, want) {
			t.Errorf("?%s: %v; want %v", query, got, want)
		}
	}
	var urls []string
	c.must("GET /1.0/instances?filter=name+eq+c2", "", &urls)
	if !slices.Equal(urls, []string{"/1.0/instances/c2"}) {
		t.Errorf("filter at recursion 0: %v; want c2", urls)
	}
	c.must("GET /1.0/virtual-machines", "", &urls)
	if len(urls) != 0 {
		t.Errorf("virtual machines: %v; want none", urls)
	}
	var full []api.InstanceFull
	c.must("GET /1.0/instances?recursion=2", "", &full)
	if len(full[0].Snapshots) != 1 || full[0].Snapshots[0].Name != "s1" || full[0].State.Status != "Stopped" || full[1].State.Status != "Running" {
		t.Errorf("recursion 2: %+v", full)
	}
	// A row of the list is put together from pieces; the object itself is not.
	for i, name := range []string{"c1", "c2"} {
		var rows []map[string]any
		c.must("GET /1.0/instances?recursion=2", "", &rows)
		var alone map[string]any
		c.must("GET /1.0/instances/"+name+"?recursion=1", "", &alone)
		if diff := cmp.Diff(alone, rows[i]); diff != "" {
			t.Errorf("%s alone and in the list (-alone +listed):\n%s", name, diff)
		}
	}
	// A list must show a change of a profile at once, though it remembers the
	// instances' encodings.
	c.must("PATCH /1.0/profiles/default", `{"config": {"user.p": "new"}}`, nil)
	var all []api.Instance
	c.must("GET /1.0/instances?recursion=1", "", &all)
	if all[0].ExpandedConfig["user.p"] != "new" {
		t.Errorf("after the profile changed: %v; want user.p", all[0].ExpandedConfig)
	}
	c.must("PATCH /1.0/instances/c1", `{"config": {"user.p": "own"}}`, nil)
	c.must("GET /1.0/instances?recursion=1", "", &all)
	if all[0].ExpandedConfig["user.p"] != "own" || all[1].ExpandedConfig["user.p"] != "new" {
		t.Errorf("after the instance changed: %v", all[0].ExpandedConfig)
	}
	var profile api.Profile
	c.must("GET /1.0/profiles/default", "", &profile)
	if !slices.Equal(profile.UsedBy, []string{"/1.0/instances/c1", "/1.0/instances/c2"}) {
		t.Errorf("used_by %v; want both instances", profile.UsedBy)
	}
}

func TestInstancesRefuse(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	x.finish("PUT /1.0/instances/c1/state", `{"action": "start"}`)
	none := `"source": {"type": "none"}`
	for name, row := range map[string]struct {
		line, body string
		status     int
		words      string
	}{
		"a name that is taken":            {"POST /1.0/instances", `{"name": "c1", ` + none + `}`, 409, "c1"},
		"a name with a slash":             {"POST /1.0/instances", `{"name": "a/b", ` + none + `}`, 400, "a/b"},
		"a name of digits":                {"POST /1.0/instances", `{"name": "123", ` + none + `}`, 400, "123"},
		"a name of 65 characters":         {"POST /1.0/instances", `{"name": "` + strings.Repeat("x", 65) + `", ` + none + `}`, 400, "64"},
		"an unknown source":               {"POST /1.0/instances", `{"name": "x", "source": {"type": "air"}}`, 400, "air"},
		"no source":                       {"POST /1.0/instances", `{"name": "x"}`, 400, "source"},
		"an image that is not there":      {"POST /1.0/instances", `{"name": "x", "source": {"type": "image", "alias": "nope"}}`, 404, "nope"},
		"a profile that is not there":     {"POST /1.0/instances", `{"name": "x", "profiles": ["nope"], ` + none + `}`, 404, "nope"},
		"no profile and so no root disk":  {"POST /1.0/instances", `{"name": "x", "profiles": [], ` + none + `}`, 400, "root disk"},
		"a misspelt key":                  {"POST /1.0/instances", `{"name": "x", "config": {"limit.cpu": "1"}, ` + none + `}`, 400, "limits.cpu"},
		"a misspelt device option":        {"POST /1.0/instances", `{"name": "x", "devices": {"n": {"type": "nic", "nictyp": "p2p"}}, ` + none + `}`, 400, "nictype"},
		"a virtual machine by its type":   {"POST /1.0/instances", `{"name": "x", "type": "virtual-machine", ` + none + `}`, 400, "containers only"},
		"a virtual machine by its path":   {"POST /1.0/virtual-machines", `{"name": "x", ` + none + `}`, 400, "containers only"},
		"a container as virtual machine":  {"GET /1.0/virtual-machines/c1", "", 404, "containers only"},
		"deleting one that runs":          {"DELETE /1.0/instances/c1", "", 400, "running"},
		"renaming one that runs":          {"POST /1.0/instances/c1", `{"name": "c9"}`, 400, "running"},
		"an unknown action":               {"PUT /1.0/instances/c1/state", `{"action": "explode"}`, 400, "explode"},
		"an instance that is not there":   {"GET /1.0/instances/nope", "", 404, "nope"},
		"its state":                       {"GET /1.0/instances/nope/state", "", 404, "nope"},
		"its snapshots":                   {"GET /1.0/instances/nope/snapshots", "", 404, "nope"},
		"a command in it":                 {"POST /1.0/instances/nope/exec", `{"command": ["true"]}`, 404, "nope"},
		"no command":                      {"POST /1.0/instances/c1/exec", `{"command": []}`, 400, "command"},
		"a command that is text":          {"POST /1.0/instances/c1/exec", `{"command": "true"}`, 400, "list of strings"},
		"a snapshot that is not there":    {"GET /1.0/instances/c1/snapshots/nope", "", 404, "nope"},
		"restoring one that is not there": {"PUT /1.0/instances/c1", `{"restore": "nope"}`, 404, "nope"},
		"a file without a path":           {"GET /1.0/instances/c1/files", "", 400, "path"},
		"a file that is not there":        {"GET /1.0/instances/c1/files?path=/nope", "", 404, "nope"},
		"all of them, without an action":  {"PUT /1.0/instances", `{}`, 400, "state"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *x.local
			c.t = t
			c.refused(row.line, row.body, row.status, row.words)
		})
	}
	var urls []string
	x.local.must("GET /1.0/instances", "", &urls)
	if len(urls) != 1 {
		t.Errorf("instances after all refusals: %v; want c1", urls)
	}
}

func TestInstancesKeepETags(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	tag := x.local.must("GET /1.0/instances/c1", "", nil).http.Header.Get("ETag")
	x.local.must("PATCH /1.0/instances/c1", `{"description": "new"}`, nil)
	for _, method := range []string{"PUT", "PATCH"} {
		if got := x.local.do(method+" /1.0/instances/c1", `{"description": "mine"}`, "If-Match", tag); got.status != 412 {
			t.Errorf("%s with a stale ETag: %d %s; want 412", method, got.status, got.Error)
		}
	}
	if got := x.instance("c1").Description; got != "new" {
		t.Errorf("description %q; want new", got)
	}
}

func TestOneInstanceOfManyCreators(t *testing.T) {
	x := furnished(t)
	var creators sync.WaitGroup
	statuses := make([]int, 6)
	for i := range statuses {
		creators.Go(func() {
			statuses[i] = x.local.do("POST /1.0/instances", `{"name": "c1", "source": {"type": "none"}}`).status
		})
	}
	creators.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{202, 409, 409, 409, 409, 409}) {
		t.Errorf("statuses %v; want one 202 and otherwise 409", statuses)
	}
	eventually(t, "the one creation", func() bool { return x.local.do("GET /1.0/instances/c1", "").status == 200 })
	eventually(t, "its end", func() bool {
		inst, err := x.store.View().Instance("default", "c1")
		return err == nil && inst.Busy == ""
	})
}

func TestSnapshots(t *testing.T) {
	x := furnished(t)
	c := x.local
	x.create("c1")
	x.finish("POST /1.0/instances/c1/snapshots", `{"name": "before", "expires_at": "2036-01-02T03:04:05Z"}`)
	c.must("PATCH /1.0/instances/c1", `{"description": "after"}`, nil)
	var urls []string
	c.must("GET /1.0/containers/c1/snapshots", "", &urls)
	if !slices.Equal(urls, []string{"/1.0/containers/c1/snapshots/before"}) {
		t.Errorf("snapshots %v; want the one, under the caller's prefix", urls)
	}
	c.refused("POST /1.0/instances/c1/snapshots", `{"name": "before"}`, 409, "before")
	var snapshot api.InstanceSnapshot
	c.must("GET /1.0/instances/c1/snapshots/before", "", &snapshot)
	if snapshot.Name != "before" || snapshot.ExpiresAt.Year() != 2036 {
		t.Errorf("snapshot %+v", snapshot)
	}
	c.must("PATCH /1.0/instances/c1/snapshots/before", `{}`, nil)
	c.must("GET /1.0/instances/c1/snapshots/before", "", &snapshot)
	if snapshot.ExpiresAt.Year() != 2036 {
		t.Errorf("an empty PATCH changed the expiry to %v", snapshot.ExpiresAt)
	}
	c.must("PUT /1.0/instances/c1/snapshots/before", `{"expires_at": "2037-01-02T03:04:05Z"}`, nil)
	c.must("GET /1.0/instances/c1/snapshots/before", "", &snapshot)
	if snapshot.ExpiresAt.Year() != 2037 {
		t.Errorf("after PUT: expiry %v; want 2037", snapshot.ExpiresAt)
	}
	x.finish("PUT /1.0/instances/c1", `{"restore": "before"}`)
	if got := x.instance("c1").Description; got != "" {
		t.Errorf("description after the restore: %q; want it empty as before", got)
	}
	x.finish("POST /1.0/instances/c1/snapshots", `{}`)
	c.must("GET /1.0/instances/c1/snapshots", "", &urls)
	if !slices.Contains(urls, "/1.0/instances/c1/snapshots/snap0") {
		t.Errorf("snapshots %v; want snap0 for the one without a name", urls)
	}
	x.finish("POST /1.0/instances/c1/snapshots/snap0", `{"name": "later"}`)
	x.finish("DELETE /1.0/instances/c1/snapshots/later", "")
	c.refused("GET /1.0/instances/c1/snapshots/later", "", 404, "later")
}

// exec runs a command whose output is recorded.
func (x *realm) exec(body string) api.Operation {
	x.t.Helper()
	got := x.local.must("POST /1.0/instances/c1/exec", body, nil)
	var op api.Operation
	x.local.must("GET "+got.Operation+"/wait", "", &op)
	return op
}

func TestExec(t *testing.T) {
	x := furnished(t)
	x.create("c1")
	x.finish("PUT /1.0/instances/c1/state", `{"action": "start"}`)

	t.Run("the output is recorded", func(t *testing.T) {
		op := x.exec(`{"command": ["sh", "-c", "echo out; echo err >&2; exit 3"], "record-output": true}`)
		if op.Status != "Success" || op.Metadata["return"] != 3.0 {
			t.Fatalf("operation %+v; want success with return 3", op)
		}
		outputs, _ := op.Metadata["output"].(map[string]any)
		for stream, want := range map[string]string{"1": "out\n", "2": "err\n"} {
			url, _ := outputs[stream].(string)
			if got := string(x.raw("GET " + url)); got != want {
				t.Errorf("stream %s at %q: %q; want %q", stream, url, got, want)
			}
			x.local.must("DELETE "+url, "", nil)
		}
	})
	t.Run("programs that are not there are 127, those that do not run 126", func(t *testing.T) {
		for command, want := range map[string]float64{"/bin/nothing": 127, "/etc/passwd": 126} {
			op := x.exec(`{"command": ["` + command + `"]}`)
			if op.Metadata["return"] != want {
				t.Errorf("%s: %+v; want return %v", command, op, want)
			}
		}
	})
	t.Run("streams are websockets of their own", func(t *testing.T) {
		id, sockets := x.connect(`{"command": ["cat"], "wait-for-websocket": true}`, "0", "1", "2")
		write(t, sockets["0"], websocket.BinaryMessage, "hello")
		write(t, sockets["0"], websocket.TextMessage, "") // the end of the input
		if got := readAll(t, sockets["1"]); got != "hello" {
			t.Errorf("standard output %q; want hello", got)
		}
		if got := readAll(t, sockets["2"]); got != "" {
			t.Errorf("standard error %q; want nothing", got)
		}
		x.returned(id, 0)
	})
	t.Run("a terminal is one websocket, signals come by the control socket", func(t *testing.T) {
		id, sockets := x.connect(`{"command": ["sh", "-c", "stty size; sleep 60"], "wait-for-websocket": true, "interactive": true, "width": 80, "height": 25}`, "0", "control")
		if got := readUntil(t, sockets["0"], "\r\n"); got != "25 80\r\n" {
			t.Errorf("the terminal says %q; want its size", got)
		}
		write(t, sockets["control"], websocket.TextMessage, `{"command": "window-resize", "args": {"width": "100", "height": "50"}}`)
		write(t, sockets["control"], websocket.TextMessage, `{"command": "signal", "signal": 15}`)
		readAll(t, sockets["0"])
		x.returned(id, 143)
	})
}

// raw returns the body of an answer that is no envelope.
func (x *realm) raw(line string) []byte {
	x.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	request, err := http.NewRequestWithContext(x.t.Context(), method, x.local.base+path, nil)
	x.must(err)
	answer, err := x.local.client.Do(request)
	x.must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	x.must(err)
	if answer.StatusCode != http.StatusOK {
		x.t.Fatalf("%s: %d %s", line, answer.StatusCode, body)
	}
	return body
}

// connect starts a command and connects its websockets.
func (x *realm) connect(body string, names ...string) (id string, sockets map[string]*websocket.Conn) {
	x.t.Helper()
	var op api.Operation
	x.local.must("POST /1.0/instances/c1/exec", body, &op)
	fds, _ := op.Metadata["fds"].(map[string]any)
	sockets = map[string]*websocket.Conn{}
	for _, name := range names {
		conn, refusal := x.local.websocket(fmt.Sprintf("/1.0/operations/%s/websocket?secret=%s", op.ID, fds[name]), nil)
		if refusal != "" {
			x.t.Fatalf("socket %s: %s", name, refusal)
		}
		sockets[name] = conn
	}
	return op.ID, sockets
}

// returned checks how a command ended.
func (x *realm) returned(id string, want float64) {
	x.t.Helper()
	var op api.Operation
	x.local.must("GET /1.0/operations/"+id+"/wait", "", &op)
	if op.Status != "Success" || op.Metadata["return"] != want {
		x.t.Errorf("operation %+v; want return %v", op, want)
	}
}

func write(t *testing.T, conn *websocket.Conn, kind int, text string) {
	t.Helper()
	if err := conn.WriteMessage(kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// readAll reads a stream to its end: an empty text message, then the close.
func readAll(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	var all strings.Builder
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil || kind == websocket.TextMessage && len(message) == 0 {
			return all.String()
		}
		all.Write(message)
	}
}

func readUntil(t *testing.T, conn *websocket.Conn, end string) string {
	t.Helper()
	var all strings.Builder
	for !strings.HasSuffix(all.String(), end) {
		_, message, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("after %q: %v", all.String(), err)
		}
		all.Write(message)
	}
	return all.String()
}

func TestFiles(t *testing.T) {
	x := furnished(t)
	c := x.local
	x.create("c1")
	x.finish("PUT /1.0/instances/c1/state", `{"action": "start"}`)
	const path = "/1.0/instances/c1/files?path=/tmp/greeting"
	post := func(body string, headers ...string) {
		t.Helper()
		if got := c.do("POST "+path, body, headers...); got.status != 200 {
			t.Fatalf("POST %v: %d %s", headers, got.status, got.Error)
		}
	}
	post("hello", "X-LXD-mode", "0600")
	post(" world", "X-LXD-write", "append")
	if got := string(x.raw("GET " + path)); got != "hello world" {
		t.Errorf("file %q; want hello world", got)
	}
	post("bye", "X-LXD-write", "overwrite")
	if got := string(x.raw("GET " + path)); got != "bye" {
		t.Errorf("overwritten file %q; want bye", got)
	}
	large := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB: bodies that are files have no limit
	post(large)
	if got := string(x.raw("GET " + path)); got != large {
		t.Errorf("a file of %d bytes came back with %d", len(large), len(got))
	}
	got := c.do("GET /1.0/instances/c1/files?path=/tmp", "")
	var entries []string
	if err := json.Unmarshal(got.Metadata, &entries); err != nil || got.http.Header.Get("X-LXD-type") != "directory" || !slices.Contains(entries, "greeting") {
		t.Errorf("directory: %s, type %q; want a list with greeting", got.Metadata, got.http.Header.Get("X-LXD-type"))
	}
	c.must("DELETE "+path, "", nil)
	c.refused("GET "+path, "", 404, "greeting")
	for name, row := range map[string]struct{ header, value, words string }{
		"a mode that is not octal": {"X-LXD-mode", "rw", "octal"},
		"an owner by name":         {"X-LXD-uid", "root", "numeric"},
		"an unknown type":          {"X-LXD-type", "socket", "socket"},
		"an unknown way to write":  {"X-LXD-write", "prepend", "append"},
	} {
		if got := c.do("POST "+path, "x", row.header, row.value); got.status != 400 || !strings.Contains(got.Error, row.words) {
			t.Errorf("%s: %d %q; want 400 with %q", name, got.status, got.Error, row.words)
		}
	}
	c.refused("GET "+path, "", 404, "greeting")
}
