package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// It does not matter which member is asked, by whatever route, and how many there are:
// routesread_test.go looks, routeswrite_test.go changes, routesockets_test.go connects.
func TestEveryRouteThroughEveryMember(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprintf("%d members", size), func(t *testing.T) {
			s := newStage(t, members(t, size))
			t.Run("reads", s.reads)
			t.Run("refusals", s.refusals)
			t.Run("writes", s.writes)
			t.Run("sockets", s.sockets)
		})
	}
}

// A route that nobody wrote an example for fails by its name, and so does an example of
// a route that is not there.
func TestEveryRouteHasAnExample(t *testing.T) {
	routes := documented(t)
	examples := map[string]bool{}
	note := func(route, path string) {
		examples[route] = true
		if !slices.Contains(routes, route) {
			t.Errorf("an example is of %s, which docs/openapi.yaml does not have", route)
		}
		if _, pattern, _ := strings.Cut(route, " "); !matching(pattern).MatchString(path) {
			t.Errorf("%s is no example of %s", path, route)
		}
	}
	for pattern, looks := range reads {
		for _, l := range looks {
			note("GET "+pattern, l.path)
		}
	}
	for _, story := range stories {
		for _, step := range story.steps {
			note(step.route, step.path)
		}
	}
	for _, route := range routes {
		if !examples[route] {
			t.Errorf("%s has no example: add one to reads (routesread_test.go) or to stories (routeswrite_test.go)", route)
		}
	}
}

// documented are the routes of docs/openapi.yaml, as "METHOD /path/{variable}".
func documented(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var routes []string
	for path, methods := range document.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	return routes
}

var variable = regexp.MustCompile(`\{[a-z]+\}`)

// matching is what the path of an example looks like, with or without its placeholders
// filled in.
func matching(pattern string) *regexp.Regexp {
	literals := variable.Split(pattern, -1)
	for i, literal := range literals {
		literals[i] = regexp.QuoteMeta(literal)
	}
	return regexp.MustCompile("^" + strings.Join(literals, `[^/?]+`) + `(\?.*)?$`)
}

// stage is a cluster that has something of everything.
type stage struct {
	members []*lab.Member
	// values are what placeholders in examples stand for.
	values map[string]string
}

func newStage(t *testing.T, members []*lab.Member) *stage {
	t.Helper()
	s := &stage{members: members, values: map[string]string{}}
	first := members[0]
	do := func(method, path string, body any) lab.Answer {
		t.Helper()
		answer, err := first.Do(t.Context(), method, path, body)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	first.Busybox()
	s.values["image"] = fingerprint(t, first)
	s.values["bridge"] = network(t, first)
	pem, _ := newCertificate(t, time.Now(), "somebody")
	do(http.MethodPost, "/1.0/certificates", object{"name": "somebody", "type": "client", "certificate": pem})
	urls := decode[[]string](t, mustGet(t, first, "/1.0/certificates"))
	s.values["certificate"] = last(urls[0])
	for i := range members {
		name := fmt.Sprintf("c%d", i+1)
		do(http.MethodPost, fmt.Sprintf("/1.0/instances?target=m%d", i+1), object{"name": name, "source": object{"type": "image", "alias": "busybox"}})
		do(http.MethodPut, "/1.0/instances/"+name+"/state", object{"action": "start"})
		do(http.MethodPost, "/1.0/instances/"+name+"/snapshots", object{"name": "s0"})
		ended := do(http.MethodPost, "/1.0/instances/"+name+"/exec", object{"command": []string{"sh", "-c", "echo here | tee /root/f"}, "record-output": true})
		// Instances are run in the order of their members, so the last one's is kept.
		s.values["log"] = last(at(ended.Metadata, "metadata.output.1"))
	}
	s.values["last"] = fmt.Sprint(len(members))
	running := do202(t, first, "/1.0/instances/c"+s.values["last"]+"/exec", object{"command": []string{"sleep", "1000"}, "record-output": true})
	s.values["operation"] = at(running.Metadata, "id")
	return s
}

// do202 starts an operation and does not wait for it.
func do202(t *testing.T, m *lab.Member, path string, body any) lab.Answer {
	t.Helper()
	answer, err := m.Request(t.Context(), http.MethodPost, path, body, nil)
	if err != nil || answer.Code != http.StatusAccepted {
		t.Fatalf("POST %s: %d %q, %v", path, answer.Code, answer.Error, err)
	}
	return answer
}

// last is the last element of a path.
func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// at is the text that the keys of the dotted path lead to.
func at(document []byte, keys string) string {
	var value any
	if json.Unmarshal(document, &value) != nil {
		return ""
	}
	for key := range strings.SplitSeq(keys, ".") {
		inside, _ := value.(object)
		value = inside[key]
	}
	text, _ := value.(string)
	return text
}

// fill puts the values in the place of "{name}", in texts and in what holds texts.
func fill(in any, values map[string]string) any {
	switch in := in.(type) {
	case string:
		for name, value := range values {
			in = strings.ReplaceAll(in, "{"+name+"}", value)
		}
		return in
	case object:
		filled := object{}
		for key, value := range in {
			filled[fill(key, values).(string)] = fill(value, values)
		}
		return filled
	case []any:
		filled := make([]any, len(in))
		for i, value := range in {
			filled[i] = fill(value, values)
		}
		return filled
	}
	return in
}

// told is an answer in a form that can be compared and shown.
type told struct {
	Code      int
	Header    http.Header
	Error     string
	Operation string
	Metadata  any
}

func tell(answer lab.Answer) told {
	said := told{Code: answer.Code, Header: maps.Clone(answer.Header), Error: answer.Error, Operation: answer.Operation}
	said.Header.Del("Date")
	if json.Unmarshal(answer.Metadata, &said.Metadata) == nil {
		return said
	}
	said.Metadata = string(answer.Metadata)
	if len(answer.Metadata) > 4096 || !utf8.Valid(answer.Metadata) {
		said.Metadata = fmt.Sprintf("%d bytes with the sum %x", len(answer.Metadata), sha256.Sum256(answer.Metadata))
	}
	return said
}

// silent is how a member says that it heard nothing from a leader in time, which
// happens on a machine that has other work.
var silent = regexp.MustCompile("fell silent|has no leader that answers")

// ask sends the same request, which changes nothing, to every member at once, and again to
// who could not say.
func (s *stage) ask(t *testing.T, method, path string, body any) []told {
	t.Helper()
	said := make([]told, len(s.members))
	var asking sync.WaitGroup
	for i, m := range s.members {
		asking.Go(func() {
			for range 5 {
				// What is no JSON is sent as it is, and a reader can be read only once.
				sent := body
				if text, ok := body.(string); ok {
					sent = strings.NewReader(text)
				}
				answer, err := m.Request(t.Context(), method, strings.ReplaceAll(path, " ", "%20"), sent, nil)
				if err != nil {
					t.Errorf("m%d: %s %s: %v", i+1, method, path, err)
					return
				}
				if said[i] = tell(answer); !silent.MatchString(answer.Error) {
					return
				}
			}
		})
	}
	asking.Wait()
	return said
}

// differ says how the answers of the others differ from the first's, and "" when they
// don't.
func differ(said []told) string {
	for i, other := range said[1:] {
		if diff := cmp.Diff(said[0], other); diff != "" {
			return fmt.Sprintf("m1 and m%d differ (-m1 +m%d):\n%s", i+2, i+2, diff)
		}
	}
	return ""
}

// caughtUp returns when every member knows what has been done through any: whoever is
// asked for what is not there looks again with all that the cluster knows.
func (s *stage) caughtUp(t *testing.T) {
	t.Helper()
	for i, said := range s.ask(t, http.MethodGet, "/1.0/profiles/nobody", nil) {
		if said.Code != http.StatusNotFound {
			t.Fatalf("m%d answers %d %q about a profile that is not there", i+1, said.Code, said.Error)
		}
	}
}

// refusals asks every route for what is not there, and sends every route that takes a
// body one that is none: the sentence is the same from all, and it is no fault of ours.
func (s *stage) refusals(t *testing.T) {
	s.caughtUp(t)
	for _, route := range documented(t) {
		method, pattern, _ := strings.Cut(route, " ")
		var body any
		switch method {
		case http.MethodGet, http.MethodDelete:
			if !variable.MatchString(pattern) {
				continue
			}
		default:
			body = "{"
		}
		path := variable.ReplaceAllString(pattern, "nobody")
		t.Run(strings.ReplaceAll(route, "/", "|"), func(t *testing.T) {
			said := s.ask(t, method, path, body)
			if diff := differ(said); diff != "" {
				t.Error(diff)
			}
			for i, each := range said {
				if each.Code < 400 || each.Code >= 500 || each.Error == "" {
					t.Errorf("m%d answers %d %q; want a refusal", i+1, each.Code, each.Error)
				}
			}
		})
	}
}
