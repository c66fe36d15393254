package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// What is done in an instance, and each secret that lets somebody in, is told to whoever
// listens anywhere, once, with who asked and with the member on which it happened.
func TestLifecycleOfWhatIsNotRecorded(t *testing.T) {
	members := lab.ClusterOf(t, 2, lab.Options{Args: []string{"--verbose"}})
	first := members[0]
	first.Busybox()
	if _, err := first.Do(t.Context(), http.MethodPost, "/1.0/instances?target=m2", object{"name": "c1", "source": object{"type": "image", "alias": "busybox"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Do(t.Context(), http.MethodPut, "/1.0/instances/c1/state", object{"action": "start"}); err != nil {
		t.Fatal(err)
	}
	// The log of the member where it happened says so, and no other's.
	const start = "action=instance-started source=/1.0/instances/c1 requestor=root"
	eventually(t, func() string {
		return unless(strings.Contains(members[1].Log(), start), "musterd --verbose does not log that an instance starts")
	})
	if strings.Contains(first.Log(), start) {
		t.Error("a member logs what happened on another")
	}
	var image struct{ Target string }
	if err := first.Get(t.Context(), "/1.0/images/aliases/busybox", &image); err != nil {
		t.Fatal(err)
	}
	// Another member than the one that is asked, which is another than where it happens.
	for i, m := range members {
		events := dialSocket(t, m, "/1.0/events?type=lifecycle")
		defer events.Close()
		asked := members[1-i]
		ask := func(method, path string, body any) {
			t.Helper()
			if answer, err := asked.Request(t.Context(), method, path, body, nil); err != nil || answer.Code >= 400 {
				t.Fatalf("%s %s: %d %s, %v", method, path, answer.Code, answer.Error, err)
			}
		}
		ask(http.MethodPost, "/1.0/instances/c1/files?path=/root/f", io.Reader(strings.NewReader("x")))
		ask(http.MethodGet, "/1.0/instances/c1/files?path=/root/f", nil)
		ask(http.MethodDelete, "/1.0/instances/c1/files?path=/root/f", nil)
		ask(http.MethodPost, "/1.0/instances/c1/exec", object{"command": []string{"true"}})
		ask(http.MethodPost, "/1.0/instances/c1/console", object{})
		ask(http.MethodGet, "/1.0/instances/c1/console", nil)
		ask(http.MethodDelete, "/1.0/instances/c1/console", nil)
		ask(http.MethodPost, "/1.0/images/"+image.Target+"/secret", object{})
		ask(http.MethodPost, "/1.0/cluster/members", object{"server_name": "m" + string(rune('3'+i))})
		ask(http.MethodPost, "/1.0/certificates", object{"name": "c", "type": "client", "token": true})
		ask(http.MethodPost, "/1.0/profiles", object{"name": "p" + string(rune('3'+i))})
		// What is recorded, too, is told with the member where it was done.
		ask(http.MethodPatch, "/1.0/instances/c1", object{"description": "d"})
		here := []string{"m2", "m1"}[i]
		want := []string{
			`instance-file-pushed /1.0/instances/c1 m2 {"path":"/root/f"} root`,
			`instance-file-retrieved /1.0/instances/c1 m2 {"path":"/root/f"} root`,
			`instance-file-deleted /1.0/instances/c1 m2 {"path":"/root/f"} root`,
			`instance-exec /1.0/instances/c1 m2 {"command":["true"]} root`,
			`instance-console /1.0/instances/c1 m2 {"type":"console"} root`,
			`instance-console-retrieved /1.0/instances/c1 m2 null root`,
			`instance-console-reset /1.0/instances/c1 m2 null root`,
			`image-secret-created /1.0/images/` + image.Target + ` ` + here + ` null root`,
			`cluster-token-created /1.0/cluster/members ` + here + ` null root`,
			`certificate-token-created /1.0/certificates ` + here + ` null root`,
			`profile-created /1.0/profiles/p` + string(rune('3'+i)) + ` ` + here + ` null root`,
			`instance-updated /1.0/instances/c1 m2 null root`,
		}
		var got []string
		_ = events.SetReadDeadline(time.Now().Add(30 * time.Second))
		for len(got) < len(want) {
			_, data, err := events.ReadMessage()
			if err != nil {
				t.Errorf("after %d events: %v", len(got), err)
				break
			}
			var event struct {
				Location string
				Metadata struct {
					Action, Source string
					Context        json.RawMessage
					Requestor      struct{ Username string }
				}
			}
			if err := json.Unmarshal(data, &event); err != nil {
				t.Fatal(err)
			}
			context := string(event.Metadata.Context)
			if context == "" {
				context = "null"
			}
			got = append(got, strings.Join([]string{event.Metadata.Action, event.Metadata.Source, event.Location, context, event.Metadata.Requestor.Username}, " "))
		}
		// News and changes come by two logs: each in its own order.
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
			t.Errorf("listening on m%d (-want +got):\n%s", i+1, diff)
		}
	}
}
