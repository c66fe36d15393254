// Command bench measures what users wait for, against a daemon of ours and, when
// Debian's lxd is installed, against LXD in the same run, and prints a table with
// ratios.
//
// It starts both daemons in directories of their own and removes what it made. It
// asserts nothing: it prints.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"muster/node/image"
)

// server is a daemon under measurement.
type server struct {
	name   string
	socket string
	dir    string
	daemon *exec.Cmd
	client *http.Client
	pool   string
}

func main() {
	count := flag.Int("n", 15, "measurements for each row")
	many := flag.Int("instances", 200, "instances in the lists")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *count, *many); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, count, many int) error {
	if os.Getuid() != 0 {
		return errors.New("needs root: runs real containers")
	}
	scratch, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o711); err != nil {
		return err
	}
	built, err := image.BuildBusybox(ctx, image.BusyboxSpec{OutDir: scratch})
	if err != nil {
		return err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.end()
		}
	}()
	ours, err := startMuster(ctx, filepath.Join(scratch, "muster"))
	if err != nil {
		return err
	}
	servers = append(servers, ours)
	if _, err := exec.LookPath("lxd"); err == nil {
		theirs, err := startLXD(ctx, filepath.Join(scratch, "lxd"))
		if err != nil {
			fmt.Fprintln(os.Stderr, "LXD could not be started and is left out:", err)
		} else {
			servers = append(servers, theirs)
		}
	} else {
		fmt.Fprintln(os.Stderr, "Debian's lxd is not installed: measuring muster alone")
	}
	large := filepath.Join(scratch, "large.tar")
	if err := largeImage(built.Unified, large); err != nil {
		return err
	}
	for _, s := range servers {
		if err := errors.Join(s.importImage(ctx, built.Unified, "busybox"), s.importImage(ctx, large, "large")); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return measure(ctx, servers, count, many)
}

// result is the median of one row for each server.
type result struct {
	what   string
	values []time.Duration
}

func measure(ctx context.Context, servers []*server, count, many int) error {
	var results []result
	row := func(what string, times int, f func(s *server, i int) (time.Duration, error)) error {
		all := make([][]time.Duration, len(servers))
		// Turn by turn, so that noise of the machine hits everybody alike.
		for i := range times {
			for n, s := range servers {
				took, err := f(s, i)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s.name, what, err)
				}
				all[n] = append(all[n], took)
			}
		}
		r := result{what: what}
		for _, values := range all {
			slices.Sort(values)
			r.values = append(r.values, values[len(values)/2])
		}
		results = append(results, r)
		return nil
	}
	timed := func(f func() error) (time.Duration, error) {
		start := time.Now()
		err := f()
		return time.Since(start), err
	}
	name := func(i int) string { return "bench" + strconv.Itoa(i) }
	path := func(i int) string { return "/1.0/instances/" + name(i) }
	state := func(s *server, i int, action string, force bool) error {
		return s.do(ctx, http.MethodPut, path(i)+"/state", map[string]any{"action": action, "force": force, "timeout": 30})
	}
	steps := []struct {
		what string
		f    func(s *server, i int) error
	}{
		{"create", func(s *server, i int) error { return s.create(ctx, name(i), "busybox") }},
		{"start", func(s *server, i int) error { return state(s, i, "start", false) }},
		{"exec true", func(s *server, i int) error { return s.execTrue(ctx, name(i)) }},
		{"PATCH instance", func(s *server, i int) error {
			return s.do(ctx, http.MethodPatch, path(i), map[string]any{"config": map[string]string{"user.x": strconv.Itoa(i)}})
		}},
		{"GET instance state", func(s *server, i int) error { return s.do(ctx, http.MethodGet, path(i)+"/state", nil) }},
		{"forced stop", func(s *server, i int) error { return state(s, i, "stop", true) }},
		{"snapshot (stopped)", func(s *server, i int) error {
			return s.do(ctx, http.MethodPost, path(i)+"/snapshots", map[string]any{"name": "s0"})
		}},
		{"restore", func(s *server, i int) error {
			return s.do(ctx, http.MethodPut, path(i), map[string]any{"restore": "s0"})
		}},
		{"copy", func(s *server, i int) error {
			return s.do(ctx, http.MethodPost, "/1.0/instances", map[string]any{
				"name": "copy" + strconv.Itoa(i), "profiles": []string{"default"}, "source": map[string]any{"type": "copy", "source": name(i)},
			})
		}},
		{"delete", func(s *server, i int) error { return s.do(ctx, http.MethodDelete, path(i), nil) }},
	}
	// A warm-up lets both unpack the image.
	for _, s := range servers {
		for _, alias := range []string{"busybox", "large"} {
			if err := errors.Join(s.create(ctx, "warm", alias), s.do(ctx, http.MethodDelete, "/1.0/instances/warm", nil)); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, step := range steps {
		if err := row(step.what, count, func(s *server, i int) (time.Duration, error) {
			return timed(func() error { return step.f(s, i) })
		}); err != nil {
			return err
		}
	}
	if err := row("launch (create + start)", count, func(s *server, i int) (time.Duration, error) {
		return timed(func() error {
			return errors.Join(s.create(ctx, name(i), "busybox"), state(s, i, "start", false))
		})
	}); err != nil {
		return err
	}
	companions := make([]string, len(servers))
	for n, s := range servers {
		companions[n] = s.companions()
	}
	for _, s := range servers {
		for i := range count {
			err := errors.Join(state(s, i, "stop", true), s.do(ctx, http.MethodDelete, path(i), nil),
				s.do(ctx, http.MethodDelete, "/1.0/instances/copy"+strconv.Itoa(i), nil))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	if err := row("create from a 206 MB image", min(count, 5), func(s *server, i int) (time.Duration, error) {
		return timed(func() error { return s.create(ctx, "large"+strconv.Itoa(i), "large") })
	}); err != nil {
		return err
	}
	if err := row("snapshot of 206 MB", min(count, 5), func(s *server, i int) (time.Duration, error) {
		return timed(func() error {
			return s.do(ctx, http.MethodPost, "/1.0/instances/large"+strconv.Itoa(i)+"/snapshots", map[string]any{"name": "s0"})
		})
	}); err != nil {
		return err
	}
	if err := row("create empty", count, func(s *server, i int) (time.Duration, error) {
		return timed(func() error { return s.create(ctx, "empty"+strconv.Itoa(i), "") })
	}); err != nil {
		return err
	}
	for _, s := range servers {
		for i := count; i < many; i++ {
			if err := s.create(ctx, "empty"+strconv.Itoa(i), ""); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, get := range []string{"/1.0", "/1.0/instances?recursion=1", "/1.0/instances?recursion=2"} {
		what := "GET " + get
		if strings.Contains(get, "recursion") {
			what = fmt.Sprintf("list %d instances, %s", many, strings.SplitN(get, "?", 2)[1])
		}
		if err := row(what, count, func(s *server, _ int) (time.Duration, error) {
			return timed(func() error { return s.do(ctx, http.MethodGet, get, nil) })
		}); err != nil {
			return err
		}
	}
	show(servers, results, companions)
	return nil
}

func show(servers []*server, results []result, companions []string) {
	out := table.NewWriter()
	out.SetOutputMirror(os.Stdout)
	header := table.Row{"median of"}
	for _, s := range servers {
		header = append(header, s.name)
	}
	if len(servers) > 1 {
		header = append(header, "ratio")
	}
	out.AppendHeader(header)
	for _, r := range results {
		line := table.Row{r.what}
		for _, value := range r.values {
			line = append(line, fmt.Sprintf("%.2f ms", float64(value.Microseconds())/1000))
		}
		if len(r.values) > 1 {
			line = append(line, fmt.Sprintf("%.1f×", float64(r.values[1])/float64(r.values[0])))
		}
		out.AppendRow(line)
	}
	line := table.Row{"daemon's resident memory"}
	for _, s := range servers {
		line = append(line, s.memory())
	}
	out.AppendRow(line)
	line = table.Row{"what stays with each container (PSS)"}
	for _, of := range companions {
		line = append(line, of)
	}
	out.AppendRow(line)
	out.Render()
}

func startMuster(ctx context.Context, dir string) (*server, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "bin")
	s, err := start(ctx, "muster", dir, exec.Command(filepath.Join(bin, "musterd")), "MUSTER_DIR="+dir)
	if err != nil {
		return nil, err
	}
	s.pool = "overlay"
	return s, s.setUp(ctx, "overlay")
}

func startLXD(ctx context.Context, dir string) (*server, error) {
	s, err := start(ctx, "LXD 5.0.2", dir, exec.Command("lxd", "--group", "root"), "LXD_DIR="+dir)
	if err != nil {
		return nil, err
	}
	s.pool = "dir"
	return s, s.setUp(ctx, "dir")
}

func start(ctx context.Context, name, dir string, cmd *exec.Cmd, env string) (*server, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	s := &server{name: name, dir: dir, socket: filepath.Join(dir, "unix.socket"), daemon: cmd}
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}}
	cmd.Env = append(os.Environ(), env)
	log, err := os.Create(filepath.Join(dir, "bench.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if s.do(ctx, http.MethodGet, "/1.0", nil) == nil {
			return s, nil
		}
	}
	s.end()
	return nil, fmt.Errorf("%s does not answer", name)
}

func (s *server) setUp(ctx context.Context, driver string) error {
	err := s.do(ctx, http.MethodPost, "/1.0/storage-pools", map[string]any{"name": "bench", "driver": driver})
	if err != nil {
		return err
	}
	return s.do(ctx, http.MethodPut, "/1.0/profiles/default", map[string]any{
		"config": map[string]string{}, "devices": map[string]any{"root": map[string]string{"type": "disk", "path": "/", "pool": "bench"}},
	})
}

func (s *server) importImage(ctx context.Context, file, alias string) error {
	body, err := os.Open(file)
	if err != nil {
		return err
	}
	defer body.Close()
	var metadata struct {
		Metadata struct{ Fingerprint string }
	}
	if err := s.send(ctx, http.MethodPost, "/1.0/images", body, &metadata); err != nil {
		return err
	}
	return s.do(ctx, http.MethodPost, "/1.0/images/aliases", map[string]any{"name": alias, "target": metadata.Metadata.Fingerprint})
}

func (s *server) create(ctx context.Context, name, alias string) error {
	source := map[string]string{"type": "none"}
	if alias != "" {
		source = map[string]string{"type": "image", "alias": alias}
	}
	return s.do(ctx, http.MethodPost, "/1.0/instances", map[string]any{"name": name, "source": source, "architecture": "x86_64"})
}

func (s *server) execTrue(ctx context.Context, name string) error {
	return s.do(ctx, http.MethodPost, "/1.0/instances/"+name+"/exec", map[string]any{"command": []string{"true"}})
}

func (s *server) do(ctx context.Context, method, path string, body any) error {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(encoded)
	}
	return s.send(ctx, method, path, reader, nil)
}

// send makes a request and waits for the operation that it starts.
func (s *server) send(ctx context.Context, method, path string, body io.Reader, operation any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://bench"+path, body)
	if err != nil {
		return err
	}
	if _, isFile := body.(*os.File); isFile {
		request.Header.Set("Content-Type", "application/octet-stream")
	} else if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var envelope struct {
		Error     string          `json:"error"`
		Operation string          `json:"operation"`
		Metadata  json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return err
	}
	switch {
	case response.StatusCode >= 400:
		return fmt.Errorf("%s %s: %s", method, path, envelope.Error)
	case response.StatusCode == http.StatusAccepted:
		return s.wait(ctx, envelope.Operation, operation)
	}
	return nil
}

func (s *server) wait(ctx context.Context, url string, operation any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bench"+url+"/wait", nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var envelope struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return err
	}
	var ended struct {
		StatusCode int    `json:"status_code"`
		Err        string `json:"err"`
	}
	if err := json.Unmarshal(envelope.Metadata, &ended); err != nil {
		return err
	}
	if ended.StatusCode != 200 {
		return fmt.Errorf("%s: %s", url, ended.Err)
	}
	if operation != nil {
		return json.Unmarshal(envelope.Metadata, operation)
	}
	return nil
}

// memory is the daemon's resident set.
func (s *server) memory() string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Process.Pid))
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, _ := strconv.Atoi(strings.Fields(rest)[0])
			return fmt.Sprintf("%d MB", kilobytes>>10)
		}
	}
	return "?"
}

// end deletes what was made and ends the daemon.
func (s *server) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var list []string
	if response, err := s.client.Get("http://bench/1.0/instances"); err == nil {
		var envelope struct{ Metadata []string }
		if json.NewDecoder(response.Body).Decode(&envelope) == nil {
			list = envelope.Metadata
		}
		_ = response.Body.Close()
	}
	for _, instance := range list {
		_ = s.do(ctx, http.MethodPut, instance+"/state", map[string]any{"action": "stop", "force": true})
		_ = s.do(ctx, http.MethodDelete, instance, nil)
	}
	if response, err := s.client.Get("http://bench/1.0/images"); err == nil {
		var envelope struct{ Metadata []string }
		if json.NewDecoder(response.Body).Decode(&envelope) == nil {
			for _, image := range envelope.Metadata {
				_ = s.do(ctx, http.MethodDelete, image, nil)
			}
		}
		_ = response.Body.Close()
	}
	_ = s.do(ctx, http.MethodPut, "/1.0/profiles/default", map[string]any{"config": map[string]string{}, "devices": map[string]any{}})
	_ = s.do(ctx, http.MethodDelete, "/1.0/storage-pools/bench", nil)
	_ = s.daemon.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = s.daemon.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		_ = s.daemon.Process.Kill()
		<-done
	}
}
