package e2e

import (
	"archive/tar"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// step is one request of a story.
type step struct {
	route string
	path  string
	// body is sent as JSON, and as it is when it is text.
	body   any
	header http.Header
	code   int
	// alone is the code in a cluster of one, when that is another.
	alone int
	// fails is part of the sentence with which the operation fails.
	fails string
	// keeps names a value of the answer for the steps that follow: "name=dotted.keys". With "now "
	// before it, it is the answer's own, and nobody waits for the operation.
	keeps string
	// hangsUp says that the operation's websocket is connected to and left.
	hangsUp bool
	// see is what is looked at afterwards through every member, soon what is only there
	// after a moment, and gone what no member has.
	see, soon, gone []string
}

// story is what is done through one member, to things whose names end in its number
// ("{i}") and which the next member ("{owner}") has. The one who does it is "{asked}".
type story struct {
	name string
	// central says that it changes what all look at, so that it is done through one member
	// after the other.
	central bool
	steps   []step
}

const (
	opDelete   = "DELETE /1.0/operations/{id}"
	instance   = "/1.0/instances/w-x{i}"
	expiry     = "2126-01-01T00:00:00Z"
	laterStill = "2127-01-01T00:00:00Z"
)

// stories have every route that changes something.
var stories = []story{
	{name: "profiles", steps: []step{
		{route: "POST /1.0/profiles", path: "/1.0/profiles", body: object{"name": "p-x{i}", "config": object{"user.a": "1"}}, code: 201, see: []string{"/1.0/profiles/p-x{i}"}},
		{route: "POST /1.0/profiles", path: "/1.0/profiles", body: object{"name": "p-x{i}"}, code: 409},
		{route: "PUT /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"description": "put", "config": object{"user.b": "2"}}, code: 200, see: []string{"/1.0/profiles/p-x{i}"}},
		{route: "PUT /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"config": object{"limits.memroy": "2"}}, code: 400},
		{route: "PATCH /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"config": object{"user.c": "3"}}, code: 200, see: []string{"/1.0/profiles/p-x{i}"}},
		{route: "PATCH /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"config": object{"user.d": "4"}}, header: http.Header{"If-Match": {"1"}}, code: 412},
		{route: "POST /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"name": "default"}, code: 409},
		{route: "POST /1.0/profiles/{name}", path: "/1.0/profiles/p-x{i}", body: object{"name": "q-x{i}"}, code: 201, see: []string{"/1.0/profiles/q-x{i}"}, gone: []string{"/1.0/profiles/p-x{i}"}},
		{route: "DELETE /1.0/profiles/{name}", path: "/1.0/profiles/default", code: 403},
		{route: "DELETE /1.0/profiles/{name}", path: "/1.0/profiles/q-x{i}", code: 202, gone: []string{"/1.0/profiles/q-x{i}"}},
	}},
	// There is one project only; the document describes what comes.
	{name: "projects", steps: []step{
		{route: "POST /1.0/projects", path: "/1.0/projects", body: object{"name": "j-x{i}"}, code: 405},
		{route: "PUT /1.0/projects/{name}", path: "/1.0/projects/default", body: object{"description": "x"}, code: 405},
		{route: "PATCH /1.0/projects/{name}", path: "/1.0/projects/default", body: object{"description": "x"}, code: 405},
		{route: "DELETE /1.0/projects/{name}", path: "/1.0/projects/default", code: 405},
	}},
	{name: "cluster groups", central: true, steps: []step{
		{route: "POST /1.0/cluster/groups", path: "/1.0/cluster/groups", body: object{"name": "g-x{i}", "members": []any{"{owner}"}}, code: 201, see: []string{"/1.0/cluster/groups/g-x{i}"}},
		{route: "POST /1.0/cluster/groups", path: "/1.0/cluster/groups", body: object{"name": "g-x{i}"}, code: 409},
		{route: "PUT /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/g-x{i}", body: object{"description": "put", "members": []any{"{asked}"}}, code: 200, see: []string{"/1.0/cluster/groups/g-x{i}"}},
		{route: "PATCH /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/g-x{i}", body: object{"description": "patched"}, code: 200, see: []string{"/1.0/cluster/groups/g-x{i}"}},
		{route: "POST /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/g-x{i}", body: object{"name": "h-x{i}"}, code: 201, see: []string{"/1.0/cluster/groups/h-x{i}"}, gone: []string{"/1.0/cluster/groups/g-x{i}"}},
		{route: "DELETE /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/h-x{i}", code: 409},
		{route: "PATCH /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/h-x{i}", body: object{"members": []any{}}, code: 200},
		{route: "DELETE /1.0/cluster/groups/{name}", path: "/1.0/cluster/groups/h-x{i}", code: 200, gone: []string{"/1.0/cluster/groups/h-x{i}"}},
	}},
	{name: "cluster members", central: true, steps: []step{
		{route: "PUT /1.0/cluster/members/{name}", path: "/1.0/cluster/members/{owner}", body: object{"description": "put", "config": object{"user.a": "1"}, "failure_domain": "default", "groups": []any{"default"}}, code: 200, soon: []string{"/1.0/cluster/members/{owner}"}},
		{route: "PUT /1.0/cluster/members/{name}", path: "/1.0/cluster/members/{owner}", body: object{"config": object{"scheduler.instance": "never"}}, code: 400},
		{route: "PATCH /1.0/cluster/members/{name}", path: "/1.0/cluster/members/{owner}", body: object{"description": "patched"}, code: 200, soon: []string{"/1.0/cluster/members/{owner}"}},
		{route: "POST /1.0/cluster/members/{name}", path: "/1.0/cluster/members/{owner}", body: object{"server_name": "n-x{i}"}, code: 201, soon: []string{"/1.0/cluster/members/n-x{i}", "/1.0/cluster/members/n-x{i}/state"}, gone: []string{"/1.0/cluster/members/{owner}"}},
		{route: "POST /1.0/cluster/members/{name}", path: "/1.0/cluster/members/n-x{i}", body: object{"server_name": "{owner}"}, code: 201, soon: []string{"/1.0/cluster/members/{owner}"}, gone: []string{"/1.0/cluster/members/n-x{i}"}},
		{route: "DELETE /1.0/cluster/members/{name}", path: "/1.0/cluster/members/{owner}", code: 409},
		{route: "POST /1.0/cluster/members", path: "/1.0/cluster/members", body: object{"server_name": "{asked}"}, code: 409},
		{route: "POST /1.0/cluster/members", path: "/1.0/cluster/members", body: object{"server_name": "n-x{i}"}, code: 202, keeps: "now op=id", see: []string{"/1.0/operations/{op}"}},
		{route: opDelete, path: "/1.0/operations/{op}", code: 202, fails: "cancelled"},
	}},
	{name: "the cluster", central: true, steps: []step{
		{route: "PUT /1.0/cluster", path: "/1.0/cluster", body: object{"server_name": "again", "enabled": true}, code: 409},
		{route: "PUT /1.0/cluster", path: "/1.0/cluster", body: object{"enabled": false}, code: 400},
		{route: "PUT /1.0/cluster/certificate", path: "/1.0/cluster/certificate", body: object{"cluster_certificate": "{pem}", "cluster_certificate_key": "{key}"}, code: 200, soon: []string{"/1.0?target={asked}", "/1.0?target={owner}"}},
		{route: "PUT /1.0/cluster/certificate", path: "/1.0/cluster/certificate", body: object{"cluster_certificate": "{pem}", "cluster_certificate_key": ""}, code: 400},
	}},
	{name: "the members' own", steps: []step{
		{route: "POST /internal/join", path: "/internal/join", body: object{}, code: 403},
		{route: "POST /internal/join/terms", path: "/internal/join/terms", body: object{}, code: 403},
		{route: "POST /internal/cluster/terms", path: "/internal/cluster/terms", body: object{}, code: 400},
		{route: "POST /internal/going", path: "/internal/going", body: object{}, code: 403},
		{route: "POST /internal/images/{fingerprint}", path: "/internal/images/abc", code: 403},
		{route: "POST /internal/membership", path: "/internal/membership", code: 403},
		{route: "POST /internal/instances/{name}/send", path: "/internal/instances/c1/send", body: "x", code: 403},
		{route: "POST /internal/instances/{name}/receive", path: "/internal/instances/c1/receive", body: object{}, code: 403},
		{route: "DELETE /internal/instances/{name}/arrival", path: "/internal/instances/c1/arrival", code: 403},
	}},
	{name: "certificates", steps: []step{
		{route: "POST /1.0/certificates", path: "/1.0/certificates", body: object{"name": "b-x{i}", "type": "client", "certificate": "{client}"}, code: 201, see: []string{"/1.0/certificates/{print}"}},
		{route: "POST /1.0/certificates", path: "/1.0/certificates", body: object{"name": "b-x{i}", "type": "client", "certificate": "{client}"}, code: 409},
		{route: "PUT /1.0/certificates/{fingerprint}", path: "/1.0/certificates/{print}", body: object{"name": "put", "type": "client"}, code: 200, see: []string{"/1.0/certificates/{print}"}},
		{route: "PATCH /1.0/certificates/{fingerprint}", path: "/1.0/certificates/{print}", body: object{"restricted": true, "projects": []any{"default"}}, code: 200, see: []string{"/1.0/certificates/{print}"}},
		{route: "PATCH /1.0/certificates/{fingerprint}", path: "/1.0/certificates/{print}", body: object{"projects": []any{"none"}}, code: 400},
		{route: "DELETE /1.0/certificates/{fingerprint}", path: "/1.0/certificates/{print}", code: 202, gone: []string{"/1.0/certificates/{print}"}},
		{route: "POST /1.0/certificates", path: "/1.0/certificates", body: object{"name": "t-x{i}", "type": "client", "token": true}, code: 202, keeps: "now op=id", see: []string{"/1.0/operations/{op}"}},
		{route: opDelete, path: "/1.0/operations/{op}", code: 202, fails: "cancelled"},
	}},
	{name: "the server", central: true, steps: []step{
		{route: "PATCH /1.0", path: "/1.0?target={owner}", body: object{"config": object{"user.a": "x{i}"}}, code: 200, see: []string{"/1.0?target={asked}", "/1.0?target={owner}"}},
		{route: "PATCH /1.0", path: "/1.0", body: object{"config": object{"user.b": "x{i}"}}, code: 200, see: []string{"/1.0?target={asked}", "/1.0?target={owner}"}},
		{route: "PATCH /1.0", path: "/1.0?target={owner}", body: object{"config": object{"core.htps_address": "x"}}, code: 400},
		{route: "PUT /1.0", path: "/1.0?target={owner}", body: object{"config": object{"core.https_address": "{address}", "user.c": "x{i}"}}, code: 200, see: []string{"/1.0?target={asked}", "/1.0?target={owner}"}},
		{route: "PUT /1.0", path: "/1.0?target={owner}", body: object{"config": object{"core.https_address": "{address}"}}, code: 200, see: []string{"/1.0?target={owner}"}},
	}},
	{name: "images", steps: []step{
		{route: "POST /1.0/images", path: "/1.0/images", body: "{tarball}", header: http.Header{"X-Lxd-Filename": {"i-x"}}, code: 202, keeps: "fp=metadata.fingerprint", see: []string{"/1.0/images/{fp}"}, soon: []string{"/1.0/images/{fp}/export"}},
		{route: "PUT /1.0/images/{fingerprint}", path: "/1.0/images/{fp}", body: object{"public": true, "properties": object{"os": "put"}}, code: 200, see: []string{"/1.0/images/{fp}"}},
		{route: "PATCH /1.0/images/{fingerprint}", path: "/1.0/images/{fp}", body: object{"properties": object{"release": "patched"}}, code: 200, see: []string{"/1.0/images/{fp}"}},
		{route: "POST /1.0/images/{fingerprint}/refresh", path: "/1.0/images/{fp}/refresh", code: 400},
		{route: "POST /1.0/images/{fingerprint}/secret", path: "/1.0/images/{fp}/secret", code: 202, keeps: "now op=id", see: []string{"/1.0/operations/{op}"}},
		{route: opDelete, path: "/1.0/operations/{op}", code: 202, fails: "cancelled"},
		{route: "POST /1.0/images/aliases", path: "/1.0/images/aliases", body: object{"name": "a-x{i}", "target": "{fp}"}, code: 201, see: []string{"/1.0/images/aliases/a-x{i}", "/1.0/images/{fp}"}},
		{route: "POST /1.0/images/aliases", path: "/1.0/images/aliases", body: object{"name": "a-x{i}", "target": "{fp}"}, code: 409},
		{route: "PUT /1.0/images/aliases/{name}", path: "/1.0/images/aliases/a-x{i}", body: object{"description": "put", "target": "{fp}"}, code: 200, see: []string{"/1.0/images/aliases/a-x{i}"}},
		{route: "PATCH /1.0/images/aliases/{name}", path: "/1.0/images/aliases/a-x{i}", body: object{"description": "patched"}, code: 200, see: []string{"/1.0/images/aliases/a-x{i}"}},
		{route: "POST /1.0/images/aliases/{name}", path: "/1.0/images/aliases/a-x{i}", body: object{"name": "busybox"}, code: 409},
		{route: "POST /1.0/images/aliases/{name}", path: "/1.0/images/aliases/a-x{i}", body: object{"name": "b-x{i}"}, code: 201, see: []string{"/1.0/images/aliases/b-x{i}"}, gone: []string{"/1.0/images/aliases/a-x{i}"}},
		{route: "DELETE /1.0/images/aliases/{name}", path: "/1.0/images/aliases/b-x{i}", code: 200, gone: []string{"/1.0/images/aliases/b-x{i}"}},
		{route: "DELETE /1.0/images/{fingerprint}", path: "/1.0/images/{fp}", code: 202, gone: []string{"/1.0/images/{fp}", "/1.0/images/{fp}/export"}},
	}},
	{name: "networks", steps: []step{
		{route: "POST /1.0/networks", path: "/1.0/networks", body: object{"name": "n-x{i}", "config": object{"ipv4.address": "10.199.{i}.1/24", "ipv6.address": "none"}}, code: 201, see: []string{"/1.0/networks/n-x{i}", "/1.0/networks/n-x{i}?target={owner}"}},
		{route: "POST /1.0/networks", path: "/1.0/networks", body: object{"name": "n-x{i}"}, code: 409},
		{route: "PUT /1.0/networks/{name}", path: "/1.0/networks/n-x{i}", body: object{"description": "put", "config": object{"ipv4.address": "10.199.{i}.1/24", "ipv6.address": "none", "user.a": "1"}}, code: 200, see: []string{"/1.0/networks/n-x{i}"}},
		{route: "PATCH /1.0/networks/{name}", path: "/1.0/networks/n-x{i}", body: object{"description": "patched"}, code: 200, see: []string{"/1.0/networks/n-x{i}"}},
		{route: "PATCH /1.0/networks/{name}", path: "/1.0/networks/n-x{i}?target={owner}", body: object{"config": object{"user.b": "2"}}, code: 400, alone: 200},
		{route: "POST /1.0/networks/{name}", path: "/1.0/networks/{bridge}", body: object{"name": "o-x{i}"}, code: 400, alone: 409},
		{route: "POST /1.0/networks/{name}", path: "/1.0/networks/n-x{i}", body: object{"name": "o-x{i}"}, code: 400, alone: 201},
		{route: "POST /1.0/networks/{name}", path: "/1.0/networks/o-x{i}", body: object{"name": "n-x{i}"}, code: 404, alone: 201, see: []string{"/1.0/networks/n-x{i}"}, gone: []string{"/1.0/networks/o-x{i}"}},
		{route: "DELETE /1.0/networks/{name}", path: "/1.0/networks/{bridge}", code: 409},
		{route: "DELETE /1.0/networks/{name}", path: "/1.0/networks/n-x{i}", code: 200, gone: []string{"/1.0/networks/n-x{i}"}},
		{route: "POST /1.0/networks", path: "/1.0/networks?target={owner}", body: object{"name": "d-x{i}"}, code: 201, see: []string{"/1.0/networks/d-x{i}", "/1.0/networks/d-x{i}?target={owner}"}},
		{route: "DELETE /1.0/networks/{name}", path: "/1.0/networks/d-x{i}", code: 200, gone: []string{"/1.0/networks/d-x{i}"}},
	}},
	{name: "storage pools", steps: []step{
		{route: "POST /1.0/storage-pools", path: "/1.0/storage-pools", body: object{"name": "s-x{i}", "driver": "dir"}, code: 201, see: []string{"/1.0/storage-pools/s-x{i}", "/1.0/storage-pools/s-x{i}?target={owner}"}},
		{route: "POST /1.0/storage-pools", path: "/1.0/storage-pools", body: object{"name": "s-x{i}", "driver": "dir"}, code: 409},
		{route: "PUT /1.0/storage-pools/{pool}", path: "/1.0/storage-pools/s-x{i}", body: object{"description": "put", "config": object{"user.a": "1"}}, code: 200, see: []string{"/1.0/storage-pools/s-x{i}"}},
		{route: "PATCH /1.0/storage-pools/{pool}", path: "/1.0/storage-pools/s-x{i}", body: object{"description": "patched"}, code: 200, see: []string{"/1.0/storage-pools/s-x{i}"}},
		{route: "PATCH /1.0/storage-pools/{pool}", path: "/1.0/storage-pools/s-x{i}?target={owner}", body: object{"config": object{"source": "/nowhere"}}, code: 400},
		{route: "POST /1.0/storage-pools/{pool}/volumes", path: "/1.0/storage-pools/s-x{i}/volumes", body: object{"name": "v", "type": "custom"}, code: 400},
		{route: "POST /1.0/storage-pools/{pool}/volumes/{type}", path: "/1.0/storage-pools/s-x{i}/volumes/custom", body: object{"name": "v"}, code: 400},
		{route: "DELETE /1.0/storage-pools/{pool}", path: "/1.0/storage-pools/default", code: 409},
		{route: "DELETE /1.0/storage-pools/{pool}", path: "/1.0/storage-pools/s-x{i}", code: 200, gone: []string{"/1.0/storage-pools/s-x{i}"}},
	}},
	{name: "instances", steps: []step{
		{route: "POST /1.0/instances", path: "/1.0/instances?target={owner}", body: object{"name": "w-x{i}", "source": object{"type": "image", "alias": "busybox"}, "config": object{"user.a": "1"}}, code: 202, see: []string{instance, instance + "?recursion=1"}},
		{route: "POST /1.0/instances", path: "/1.0/instances", body: object{"name": "w-x{i}", "source": object{"type": "none"}}, code: 409},
		{route: "POST /1.0/instances", path: "/1.0/instances?target=nobody", body: object{"name": "y-x{i}", "source": object{"type": "none"}}, code: 404},
		{route: "PATCH /1.0/instances/{name}", path: instance, body: object{"config": object{"user.b": "2"}}, code: 200, see: []string{instance}},
		{route: "PATCH /1.0/instances/{name}", path: instance, body: object{"config": object{"user.b": "3"}}, header: http.Header{"If-Match": {"1"}}, code: 412},
		{route: "PUT /1.0/instances/{name}", path: instance, body: object{"config": object{"user.c": "3"}, "profiles": []any{"default"}, "architecture": "x86_64", "description": "put"}, code: 202, see: []string{instance}},
		{route: "POST /1.0/instances/{name}/snapshots", path: instance + "/snapshots", body: object{"name": "s1"}, code: 202, see: []string{instance + "/snapshots/s1", instance + "/snapshots"}},
		{route: "POST /1.0/instances/{name}/snapshots", path: instance + "/snapshots", body: object{"name": "s1"}, code: 409},
		{route: "PUT /1.0/instances/{name}/snapshots/{snapshot}", path: instance + "/snapshots/s1", body: object{"expires_at": expiry}, code: 202, see: []string{instance + "/snapshots/s1"}},
		{route: "PATCH /1.0/instances/{name}/snapshots/{snapshot}", path: instance + "/snapshots/s1", body: object{"expires_at": laterStill}, code: 202, see: []string{instance + "/snapshots/s1"}},
		{route: "POST /1.0/instances/{name}/snapshots/{snapshot}", path: instance + "/snapshots/s1", body: object{"name": "s2"}, code: 202, see: []string{instance + "/snapshots/s2"}, gone: []string{instance + "/snapshots/s1"}},
		{route: "PUT /1.0/instances/{name}", path: instance, body: object{"restore": "s2"}, code: 202, see: []string{instance}},
		{route: "POST /1.0/images", path: "/1.0/images", body: object{"source": object{"type": "snapshot", "name": "w-x{i}/s2"}, "compression_algorithm": "none", "properties": object{"os": "x{i}"}}, code: 202, keeps: "fp=metadata.fingerprint", see: []string{"/1.0/images/{fp}"}},
		{route: "DELETE /1.0/images/{fingerprint}", path: "/1.0/images/{fp}", code: 202, gone: []string{"/1.0/images/{fp}"}},
		{route: "DELETE /1.0/instances/{name}/snapshots/{snapshot}", path: instance + "/snapshots/s2", code: 202, gone: []string{instance + "/snapshots/s2"}},
		{route: "PUT /1.0/instances/{name}/state", path: instance + "/state", body: object{"action": "stop"}, code: 400},
		{route: "PUT /1.0/instances/{name}/state", path: instance + "/state", body: object{"action": "start"}, code: 202, see: []string{instance}},
		{route: "DELETE /1.0/instances/{name}", path: instance, code: 400},
		{route: "POST /1.0/instances/{name}/exec", path: instance + "/exec", body: object{"command": []any{"sh", "-c", "echo out; exit 3"}, "record-output": true}, code: 202, keeps: "log=metadata.output.1"},
		{route: "DELETE /1.0/instances/{name}/logs/{log}", path: instance + "/logs/{log}", code: 200, gone: []string{instance + "/logs/{log}"}},
		{route: "DELETE /1.0/instances/{name}/logs/{log}", path: instance + "/logs/lxc.log", code: 400},
		{route: "POST /1.0/instances/{name}/exec", path: instance + "/exec", body: object{"command": []any{}}, code: 400},
		{route: "POST /1.0/instances/{name}/exec", path: instance + "/exec", body: object{"command": []any{"/no/such"}, "record-output": true}, code: 202},
		{route: "POST /1.0/instances/{name}/exec", path: instance + "/exec", body: object{"command": []any{"sleep", "600"}, "record-output": true}, code: 202, keeps: "now run=id", see: []string{"/1.0/operations/{run}"}},
		{route: opDelete, path: "/1.0/operations/{run}", code: 400},
		{route: "POST /1.0/instances/{name}/console", path: instance + "/console", body: object{"type": "console"}, code: 202, hangsUp: true},
		{route: "POST /1.0/instances/{name}/console", path: instance + "/console", body: object{"type": "vga"}, code: 400},
		{route: "DELETE /1.0/instances/{name}/console", path: instance + "/console", code: 200},
		{route: "POST /1.0/instances/{name}/files", path: instance + "/files?path=/root/g", body: "written through {asked}", header: http.Header{"X-Lxd-Type": {"file"}, "X-Lxd-Mode": {"0600"}}, code: 200, see: []string{instance + "/files?path=/root/g", instance + "/files?path=/root"}},
		{route: "DELETE /1.0/instances/{name}/files", path: instance + "/files?path=/root/g", code: 200, gone: []string{instance + "/files?path=/root/g"}},
		{route: "PUT /1.0/instances/{name}/state", path: instance + "/state", body: object{"action": "stop", "force": true}, code: 202, see: []string{instance}},
		{route: "POST /1.0/instances/{name}", path: instance, body: object{"name": "c1"}, code: 409},
		{route: "POST /1.0/instances/{name}", path: instance, body: object{"name": "v-x{i}"}, code: 202, see: []string{"/1.0/instances/v-x{i}"}, gone: []string{instance}},
		{route: "POST /1.0/instances/{name}", path: "/1.0/instances/v-x{i}?target={asked}", body: object{"name": "v-x{i}", "migration": true}, code: 202, alone: 400, see: []string{"/1.0/instances/v-x{i}"}},
		{route: "DELETE /1.0/instances/{name}", path: "/1.0/instances/v-x{i}", code: 202, gone: []string{"/1.0/instances/v-x{i}"}},
		{route: opDelete, path: "/1.0/operations/{run}", code: 409},
	}},
	{name: "all instances", central: true, steps: []step{
		{route: "PUT /1.0/instances", path: "/1.0/instances", body: object{"state": object{"action": "freeze"}}, code: 202, see: []string{"/1.0/instances?recursion=1"}},
		{route: "PUT /1.0/instances", path: "/1.0/instances", body: object{"state": object{"action": "unfreeze"}}, code: 202, see: []string{"/1.0/instances?recursion=1"}},
		{route: "PUT /1.0/instances", path: "/1.0/instances", body: object{"state": object{"action": "paint"}}, code: 400},
	}},
}

// writes acts every story through every member, and compares what they were told and
// what came of it.
func (s *stage) writes(t *testing.T) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) { s.compare(t, story) })
	}
	t.Run("placement", func(t *testing.T) {
		said := s.ask(t, http.MethodPost, "/1.0/instances?dry-run", object{"source": object{"type": "none"}})
		for i := range said {
			if placement, ok := said[i].Metadata.(object); ok {
				delete(placement, "member") // of several that are as good each draws its own
			}
		}
		if diff := differ(said); diff != "" || said[0].Code != http.StatusOK {
			t.Errorf("where an instance would be made: %v, want 200 and the same from all: %s", said[0], diff)
		}
	})
}

// compare acts the story through all members at once, each with things of its own,
// unless it is central.
func (s *stage) compare(t *testing.T, story story) {
	told := make([][]string, len(s.members))
	var acting sync.WaitGroup
	for i := range s.members {
		acting.Go(func() {
			t.Run(fmt.Sprintf("through m%d", i+1), func(t *testing.T) { told[i] = s.act(t, story, i) })
		})
		if story.central {
			acting.Wait()
		}
	}
	acting.Wait()
	if t.Failed() {
		return
	}
	for i := range told {
		for n := range told[i] {
			if diff := cmp.Diff(told[0][n], told[i][n]); diff != "" {
				t.Errorf("%s %s differs through m1 and through m%d (-m1 +m%d):\n%s", story.steps[n].route, story.steps[n].path, i+1, i+1, diff)
			}
		}
	}
}

// act acts the story through the member of that index, and returns for each step what
// was told, without what is that member's alone.
func (s *stage) act(t *testing.T, story story, index int) []string {
	t.Helper()
	next := (index + 1) % len(s.members)
	values := maps.Clone(s.values)
	maps.Copy(values, map[string]string{
		"i": fmt.Sprint(index + 1), "asked": fmt.Sprintf("m%d", index+1), "owner": fmt.Sprintf("m%d", next+1),
		"address": s.members[next].Address(),
		"tarball": string(tarball(t, tar.Header{Name: fmt.Sprintf("rootfs/x%d/", index+1), Typeflag: tar.TypeDir, Mode: 0o755})),
	})
	values["pem"], values["key"] = newCertificate(t, time.Now(), "cluster.example")
	values["client"], _ = newCertificate(t, time.Now(), "client.example")
	values["print"] = fingerprintOf(t, values["client"])
	var all []string
	for _, step := range story.steps {
		scene := &scene{stage: s, t: t, step: step, values: values, m: s.members[index]}
		scene.play()
		if t.Failed() {
			return all
		}
		all = append(all, scene.normal())
	}
	return all
}

// scene is a step that is being done.
type scene struct {
	*stage
	t      *testing.T
	step   step
	values map[string]string
	m      *lab.Member
	told   []told
}

func (s *scene) fill(text string) string { return fill(text, s.values).(string) }

// play does the step, waits for its operation through every member, and looks at what
// came of it through every member.
func (s *scene) play() {
	s.t.Helper()
	method, _, _ := strings.Cut(s.step.route, " ")
	path, body := s.fill(s.step.path), fill(s.step.body, s.values)
	if text, ok := body.(string); ok {
		body = strings.NewReader(text)
	}
	answer, err := s.m.Request(s.t.Context(), method, path, body, s.step.header)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	want := s.step.code
	if s.step.alone != 0 && len(s.members) == 1 {
		want = s.step.alone
	}
	if answer.Code != want {
		s.t.Errorf("%s %s through %s: %d %q %s; want %d", method, path, s.values["asked"], answer.Code, answer.Error, answer.Metadata, want)
		return
	}
	s.told = append(s.told, tell(answer))
	name, keys, _ := strings.Cut(s.step.keeps, "=")
	name, now := strings.CutPrefix(name, "now ")
	metadata := answer.Metadata
	if s.step.hangsUp {
		_ = dialSocket(s.t, s.m, answer.Operation+"/websocket?secret="+at(metadata, "metadata.fds.0")).Close()
	}
	if answer.Code == http.StatusAccepted && !now {
		metadata = s.wait(answer.Operation)
	}
	if name != "" {
		if s.values[name] = last(at(metadata, keys)); s.values[name] == "" {
			s.t.Errorf("%s %s: there is no %s in %s", method, path, keys, metadata)
		}
	}
	if len(s.step.see)+len(s.step.soon)+len(s.step.gone) > 0 {
		s.caughtUp(s.t)
	}
	for _, path := range s.step.gone {
		s.everywhere(s.fill(path), http.StatusNotFound)
	}
	for _, path := range s.step.see {
		s.everywhere(s.fill(path), http.StatusOK)
	}
	for _, path := range s.step.soon {
		l := look{path: path, moves: "a step says so"}
		if strings.HasSuffix(path, "/state") {
			l.own, l.without = aCounter, []string{"*"}
		}
		s.look(s.t, l, s.fill(path))
	}
}

// wait waits for the operation through every member, and returns what they say of it.
func (s *scene) wait(url string) json.RawMessage {
	s.t.Helper()
	said := s.ask(s.t, http.MethodGet, url+"/wait", nil)
	if diff := differ(said); diff != "" {
		s.t.Error(diff)
	}
	ended, _ := said[0].Metadata.(object)
	failure, _ := ended["err"].(string)
	if said[0].Code != http.StatusOK || (s.step.fails == "") != (failure == "") || !strings.Contains(strings.ToLower(failure), s.step.fails) {
		s.t.Errorf("%s %s through %s: the operation ended with %d %v; want the error %q", s.step.route, s.fill(s.step.path), s.values["asked"], said[0].Code, said[0].Metadata, s.step.fails)
	}
	s.told = append(s.told, said[0])
	metadata, err := json.Marshal(said[0].Metadata)
	if err != nil {
		s.t.Fatal(err)
	}
	return metadata
}

// everywhere looks at the path through every member at once: they say the same.
func (s *scene) everywhere(path string, code int) {
	s.t.Helper()
	said := s.ask(s.t, http.MethodGet, path, nil)
	for i := range said {
		if said[i].Code != code {
			s.t.Errorf("after %s %s through %s: m%d answers %s with %d %q; want %d", s.step.route, s.fill(s.step.path), s.values["asked"], i+1, path, said[i].Code, said[i].Error, code)
		}
		if strings.Contains(path, "recursion=1") {
			said[i].blur(counters)
		}
	}
	if diff := differ(said); diff != "" {
		s.t.Errorf("after %s %s through %s: of %s %s", s.step.route, s.fill(s.step.path), s.values["asked"], path, diff)
	}
	// Of a list the other things on the stage are a part, which the members' numbers are in.
	if !strings.HasPrefix(path, "/1.0/instances?") {
		s.told = append(s.told, said[0])
	}
}

// normal is what was told without what differs from one story to the next: names,
// numbers, times, sums and addresses.
func (s *scene) normal() string {
	s.t.Helper()
	for i := range s.told {
		for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "X-Lxd-Modified"} {
			s.told[i].Header.Del(name)
		}
	}
	text, err := json.MarshalIndent(s.told, "", "  ")
	if err != nil {
		s.t.Fatal(err)
	}
	normal := string(text)
	for _, key := range []string{"location", "Location", "Member"} {
		normal = strings.ReplaceAll(normal, fmt.Sprintf("%q: %q", key, s.values["owner"]), fmt.Sprintf("%q: %q", key, "the owner"))
		normal = strings.ReplaceAll(normal, fmt.Sprintf("%q: %q", key, s.values["asked"]), fmt.Sprintf("%q: %q", key, "who was asked"))
	}
	for _, rule := range individual {
		normal = rule.pattern.ReplaceAllString(normal, rule.instead)
	}
	return normal
}

// individual is what differs from one story to the next.
var individual = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`-----BEGIN[^"]*`), "PEM"},
	{regexp.MustCompile(`"[0-9a-f-]{72}"`), `"SECRET"`},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SUM"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "SUM"},
	{regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`), "MAC"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:[0-9.]+(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`), "IP"},
	{regexp.MustCompile(`\bveth[0-9a-f]+\b`), "VETH"},
	{regexp.MustCompile(`/tmp/[^/"]+`), "DIR"},
	{regexp.MustCompile(`"server_pid": \d+`), "PID"},
	{regexp.MustCompile(`\bx[1-9]\b`), "xN"},
	{regexp.MustCompile(`\bm[1-9]\b`), "mN"},
	{regexp.MustCompile(`\bc[1-9]\b`), "cN"},
}

// fingerprintOf is the sum by which a certificate is known.
func fingerprintOf(t *testing.T, text string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("%q is no certificate", text)
	}
	return certificateSum(block.Bytes)
}
