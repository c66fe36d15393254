package rest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/state"
)

// ExecStore runs commands in instances and shows what they said; *cluster.Cluster
// is one.
type ExecStore interface {
	Exec(ctx context.Context, project, name string, spec cluster.ExecSpec) (cluster.OperationInfo, error)
	Console(ctx context.Context, project, name string, width, height int) (cluster.OperationInfo, error)
	ConsoleLog(ctx context.Context, project, name string) ([]byte, error)
	ClearConsoleLog(ctx context.Context, project, name string) error
	Logs(ctx context.Context, project, name string) ([]string, error)
	OpenLog(ctx context.Context, project, name, log string) (*os.File, error)
	DeleteLog(ctx context.Context, project, name, log string) error
}

// execs serves exec, console and logs of instances.
type execs struct{ store ExecStore }

func (x execs) routes() []route {
	project := []parameter{projectParameter}
	return []route{
		{
			pattern: "POST /1.0/instances/{name}/exec", access: trusted, on: instanceOwner, tells: onInstance("instance-exec", commandRun), handle: x.exec,
			announces: []string{"container_exec_recording", "container_exec_user_group_cwd", "container_exec_signal_handling"},
			summary:   "Run a command", body: api.InstanceExecPost{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "POST /1.0/instances/{name}/console", access: trusted, on: instanceOwner, tells: onInstance("instance-console", consoleType), handle: x.console, announces: []string{"console"},
			summary: "Attach to the console", body: api.InstanceConsolePost{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "GET /1.0/instances/{name}/console", access: trusted, on: instanceOwner, tells: onInstance("instance-console-retrieved", nil), handle: x.consoleLog,
			summary: "Read the console's log", returns: rawBody{}, query: project,
		},
		{
			pattern: "DELETE /1.0/instances/{name}/console", access: trusted, on: instanceOwner, tells: onInstance("instance-console-reset", nil), handle: x.clearConsole,
			summary: "Empty the console's log", query: project,
		},
		{
			pattern: "GET /1.0/instances/{name}/logs", access: trusted, on: instanceOwner, handle: x.logs,
			summary: "List an instance's log files", returns: []string{}, query: project,
		},
		{
			pattern: "GET /1.0/instances/{name}/logs/{log}", access: trusted, on: instanceOwner, tells: &news{action: "instance-log-retrieved", source: "/1.0/instances/{name}/logs/{log}"}, handle: x.log, streams: true,
			summary: "Read a log file", returns: rawBody{}, query: project,
		},
		{
			pattern: "DELETE /1.0/instances/{name}/logs/{log}", access: trusted, on: instanceOwner, tells: &news{action: "instance-log-deleted", source: "/1.0/instances/{name}/logs/{log}"}, handle: x.deleteLog,
			summary: "Delete a recorded output", query: project,
		},
	}
}

func (x execs) exec(r *http.Request) (any, error) {
	req, err := decode[api.InstanceExecPost](r)
	if err != nil {
		return nil, err
	}
	op, err := x.store.Exec(r.Context(), projectName(r), r.PathValue("name"), cluster.ExecSpec{
		Command: req.Command, Env: req.Environment, UID: req.User, GID: req.Group, Cwd: req.Cwd,
		Interactive: req.Interactive, Width: req.Width, Height: req.Height,
		WaitForSockets: req.WaitForWS, RecordOutput: req.RecordOutput,
	})
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x execs) console(r *http.Request) (any, error) {
	req, err := decode[api.InstanceConsolePost](r)
	if err != nil {
		return nil, err
	}
	if req.Type != "" && req.Type != "console" {
		return nil, state.Errorf(state.ErrInvalid, "type %q: containers have a text console only", req.Type)
	}
	op, err := x.store.Console(r.Context(), projectName(r), r.PathValue("name"), req.Width, req.Height)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x execs) consoleLog(r *http.Request) (any, error) {
	log, err := x.store.ConsoleLog(r.Context(), projectName(r), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return file{content: seekCloser{bytes.NewReader(log)}}, nil
}

// seekCloser makes bytes in memory a file to serve.
type seekCloser struct{ io.ReadSeeker }

func (seekCloser) Close() error { return nil }

func (x execs) clearConsole(r *http.Request) (any, error) {
	return nil, x.store.ClearConsoleLog(r.Context(), projectName(r), r.PathValue("name"))
}

func (x execs) logs(r *http.Request) (any, error) {
	project, name := projectName(r), r.PathValue("name")
	names, err := x.store.Logs(r.Context(), project, name)
	if err != nil {
		return nil, err
	}
	urls := []string{}
	for _, log := range names {
		urls = append(urls, inProject(instancesPrefix(r)+"/"+url.PathEscape(name)+"/logs/"+url.PathEscape(log), project))
	}
	return urls, nil
}

func (x execs) log(r *http.Request) (any, error) {
	log, err := x.store.OpenLog(r.Context(), projectName(r), r.PathValue("name"), r.PathValue("log"))
	if err != nil {
		return nil, err
	}
	return file{content: log}, nil
}

func (x execs) deleteLog(r *http.Request) (any, error) {
	return nil, x.store.DeleteLog(r.Context(), projectName(r), r.PathValue("name"), r.PathValue("log"))
}
