package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster/node/image"
)

// Answer is what the API said.
type Answer struct {
	// Code is the HTTP status.
	Code      int
	Header    http.Header
	Error     string          `json:"error"`
	Operation string          `json:"operation"`
	Metadata  json.RawMessage `json:"metadata"`
}

// Request sends one request to the member's local socket. A body that is an
// io.Reader is sent as it is, anything else as JSON. Only a connection that breaks
// is an error: a refusal is an answer.
func (m *Member) Request(ctx context.Context, method, path string, body any, header http.Header) (Answer, error) {
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case io.Reader:
		reader = body
	default:
		encoded, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://muster"+path, reader)
	if err != nil {
		return Answer{}, err
	}
	if _, raw := body.(io.Reader); body != nil && !raw {
		request.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(request.Header, header)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.Socket())
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	answer := Answer{Code: response.StatusCode, Header: response.Header}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		answer.Metadata = data
	}
	return answer, nil
}

// Do sends a request and waits for the operation it starts, if any. A refusal or
// a failed operation is an error.
func (m *Member) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	answer, err := m.Request(ctx, method, path, body, nil)
	if err != nil {
		return answer, err
	}
	return m.settle(ctx, answer, method+" "+path)
}

func (m *Member) settle(ctx context.Context, answer Answer, what string) (Answer, error) {
	if answer.Code >= 400 {
		return answer, fmt.Errorf("%s: %d: %s", what, answer.Code, answer.Error)
	}
	if answer.Code != http.StatusAccepted {
		return answer, nil
	}
	waited, err := m.Request(ctx, http.MethodGet, answer.Operation+"/wait", nil, nil)
	if err != nil {
		return answer, err
	}
	var operation struct {
		StatusCode int    `json:"status_code"`
		Err        string `json:"err"`
	}
	if err := json.Unmarshal(waited.Metadata, &operation); err != nil {
		return waited, fmt.Errorf("%s: %d: %s: %w", what, waited.Code, waited.Error, err)
	}
	if operation.StatusCode != 200 {
		return waited, fmt.Errorf("%s: operation ended with %d: %s", what, operation.StatusCode, operation.Err)
	}
	return waited, nil
}

// Get reads a resource into value.
func (m *Member) Get(ctx context.Context, path string, value any) error {
	answer, err := m.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer.Metadata, value)
}

// Launch creates an instance of the image "busybox" and starts it.
func (m *Member) Launch(ctx context.Context, name string) error {
	_, err := m.Do(ctx, http.MethodPost, "/1.0/instances", map[string]any{
		"name": name, "source": map[string]string{"type": "image", "alias": "busybox"},
	})
	if err == nil {
		_, err = m.Do(ctx, http.MethodPut, "/1.0/instances/"+name+"/state", map[string]any{"action": "start"})
	}
	return err
}

// Busybox builds the small test image and imports it under the alias "busybox".
func (m *Member) Busybox() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	file := BusyboxFile(m.t)
	body, err := os.Open(file)
	if err != nil {
		m.t.Fatal(err)
	}
	defer body.Close()
	header := http.Header{"X-Lxd-Filename": {filepath.Base(file)}, "X-Lxd-Aliases": {"alias=busybox"}, "Content-Type": {"application/octet-stream"}}
	answer, err := m.Request(ctx, http.MethodPost, "/1.0/images", io.Reader(body), header)
	if err == nil {
		_, err = m.settle(ctx, answer, "import busybox")
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// BusyboxFile builds the small test image and returns its file.
func BusyboxFile(t T) string {
	t.Helper()
	built, err := image.BuildBusybox(t.Context(), image.BusyboxSpec{OutDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return built.Unified
}

// purge deletes everything on the member through its API, so that nothing is left
// on the machine. Who ends in the middle of something may have left an operation that
// is under way, or a member that the others do not reach again yet: it tries for a
// while.
func (m *Member) purge() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := m.purgeOnce(ctx)
		if err == nil || time.Since(began) > settling {
			return err
		}
	}
}

// settling is how long operations and connections may take to come to rest.
const settling = 15 * time.Second

func (m *Member) purgeOnce(ctx context.Context) error {
	var failed []error
	list := func(path string) []string {
		var urls []string
		if err := m.Get(ctx, path, &urls); err != nil {
			failed = append(failed, err)
		}
		return urls
	}
	do := func(method, path string, body any) {
		if _, err := m.Do(ctx, method, path, body); err != nil {
			failed = append(failed, err)
		}
	}
	for _, instance := range list("/1.0/instances?all-projects=true") {
		base, query, _ := strings.Cut(instance, "?")
		with := func(path string) string {
			if query != "" {
				return path + "?" + query
			}
			return path
		}
		var shown struct{ Status string }
		if err := m.Get(ctx, with(base), &shown); err != nil {
			failed = append(failed, err)
			continue
		}
		if shown.Status != "Stopped" {
			do(http.MethodPut, with(base+"/state"), map[string]any{"action": "stop", "force": true})
		}
		// An ephemeral one went with its stop.
		if answer, err := m.Request(ctx, http.MethodDelete, with(base), nil, nil); err == nil && answer.Code != http.StatusNotFound {
			if _, err := m.settle(ctx, answer, "delete "+base); err != nil {
				failed = append(failed, err)
			}
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...) // what instances are made of is needed to delete them
	}
	// Without instances no address is kept. Networks take theirs with them, so it is seen
	// before they go.
	for _, kept := range m.Addresses() {
		failed = append(failed, fmt.Errorf("an address of an instance that is gone is kept: %s", kept))
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	for _, profile := range list("/1.0/profiles") {
		if strings.HasSuffix(profile, "/default") {
			do(http.MethodPut, profile, map[string]any{"config": map[string]string{}, "devices": map[string]any{}})
		} else {
			do(http.MethodDelete, profile, nil)
		}
	}
	var networks []struct {
		Name    string
		Managed bool
	}
	if err := m.Get(ctx, "/1.0/networks?recursion=1", &networks); err != nil {
		failed = append(failed, err)
	}
	for _, network := range networks {
		if network.Managed {
			do(http.MethodDelete, "/1.0/networks/"+url.PathEscape(network.Name), nil)
		}
	}
	for _, pool := range list("/1.0/storage-pools") {
		do(http.MethodDelete, pool, nil)
	}
	return errors.Join(failed...)
}

// must sends a request that is to succeed, without waiting for an operation.
func (m *Member) must(method, path string, body any) Answer {
	m.t.Helper()
	answer, err := m.Request(m.t.Context(), method, path, body, nil)
	if err != nil || answer.Code >= 400 {
		m.t.Fatalf("%s %s: %v, %d: %s", method, path, err, answer.Code, answer.Error)
	}
	return answer
}

func (m *Member) decode(answer Answer, value any) {
	m.t.Helper()
	if err := json.Unmarshal(answer.Metadata, value); err != nil {
		m.t.Fatal(err)
	}
}

// Encode writes a token the way it is handed over.
func Encode(token any) string {
	data, err := json.Marshal(token)
	if err != nil {
		panic(err) // plain maps always encode
	}
	return base64.StdEncoding.EncodeToString(data)
}

// LongestGap is the longest time between two moments that follow each other, of which the
// second came after since. They are in order.
func LongestGap(moments []time.Time, since time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(moments); i++ {
		if moments[i].After(since) {
			longest = max(longest, moments[i].Sub(moments[i-1]))
		}
	}
	return longest
}
