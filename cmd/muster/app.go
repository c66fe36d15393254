package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"muster/cmd/muster/remote"
	"muster/cmd/muster/table"
	"muster/rpc/client"
)

// app is what all commands share: where to read and write, whom to talk to.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) string

	// Set by global flags.
	project        string
	quiet, verbose bool
	debug, local   bool

	remotes *remote.Config
	clients map[string]*client.Client
}

func newApp(stdin *os.File, stdout, stderr io.Writer, getenv func(string) string) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, clients: map[string]*client.Client{}}
}

func (a *app) close() {
	for _, c := range a.clients {
		c.Close()
	}
}

// configDir is $MUSTER_CONF, or the user's usual place.
func (a *app) configDir() (string, error) {
	if dir := a.getenv("MUSTER_CONF"); dir != "" {
		return dir, nil
	}
	if dir := a.getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "muster"), nil
	}
	if home := a.getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "muster"), nil
	}
	return "", fmt.Errorf("no place for the configuration: set MUSTER_CONF or HOME")
}

// socket is where this machine's daemon listens.
func (a *app) socket() string {
	if path := a.getenv("MUSTER_SOCKET"); path != "" {
		return path
	}
	dir := a.getenv("MUSTER_DIR")
	if dir == "" {
		dir = "/var/lib/muster"
	}
	return filepath.Join(dir, "unix.socket")
}

// config is the list of remotes, read when first needed.
func (a *app) config() (*remote.Config, error) {
	if a.remotes != nil {
		return a.remotes, nil
	}
	dir, err := a.configDir()
	if err != nil {
		return nil, err
	}
	a.remotes, err = remote.Load(dir, a.socket())
	if err == nil && a.local {
		a.remotes.Default = remote.Local
	}
	return a.remotes, err
}

// connect returns the client of a remote, the same one each time.
func (a *app) connect(name string) (*client.Client, error) {
	if c, ok := a.clients[name]; ok {
		return c, nil
	}
	config, err := a.config()
	if err != nil {
		return nil, err
	}
	project := a.project
	if project == "" {
		project = a.getenv("MUSTER_PROJECT")
	}
	c, err := config.Connect(name, remote.Options{Project: project, Log: a.log(), Stale: a.staleness(name), Warn: a.warn})
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", name, err)
	}
	a.clients[name] = c
	return c, nil
}

func (a *app) warn(warning string) { fmt.Fprintln(a.stderr, "Warning:", warning) }

// staleness warns, once, when what a remote shows may be old.
func (a *app) staleness(remote string) func(old time.Duration) {
	var warned sync.Once
	return func(old time.Duration) {
		warned.Do(func() {
			fmt.Fprintf(a.stderr, "Warning: the member behind %q has had no majority of its cluster for %s: what it shows may be that old, and nothing can be changed\n", remote, old)
		})
	}
}

func (a *app) log() *slog.Logger {
	if !a.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// thing is an argument "remote:name", resolved.
type thing struct {
	*client.Client
	remote, name string
}

// on resolves an argument.
func (a *app) on(arg string) (thing, error) {
	config, err := a.config()
	if err != nil {
		return thing{}, err
	}
	remoteName, name, err := config.Split(arg)
	if err != nil {
		return thing{}, err
	}
	c, err := a.connect(remoteName)
	return thing{Client: c, remote: remoteName, name: name}, err
}

// aimed is the thing as the named cluster member has it; "" leaves that to the
// server.
func (t thing) aimed(member string) thing {
	if member != "" {
		t.Client = t.WithTarget(member)
	}
	return t
}

// clustered says whether the server is in a cluster, so that lists tell where
// things are.
func (t thing) clustered(ctx context.Context) (bool, error) {
	server, _, err := t.Server(ctx)
	return server.Environment.ServerClustered, err
}

// named resolves an argument that must have a name.
func (a *app) named(arg, what string) (thing, error) {
	t, err := a.on(arg)
	if err == nil && t.name == "" {
		return t, fmt.Errorf("%q names no %s", arg, what)
	}
	return t, err
}

// full is how a thing is called on the command line.
func (t thing) full(name string) string {
	if t.remote == remote.Local {
		return name
	}
	return t.remote + ":" + name
}

// server takes an optional first argument "remote:", and returns the other
// arguments. An argument without a colon at its end is one of the others.
func (a *app) server(args []string) (thing, []string, error) {
	if len(args) > 0 && strings.HasSuffix(args[0], ":") {
		t, err := a.on(args[0])
		return t, args[1:], err
	}
	t, err := a.on("")
	return t, args, err
}

// say tells what happens, unless --quiet.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stdout, format+"\n", args...)
	}
}

// note tells details that only --verbose asks for.
func (a *app) note(format string, args ...any) {
	if a.verbose || a.debug {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// render writes a list in the chosen format.
func (a *app) render(format string, d table.Data) error { return table.Render(a.stdout, format, d) }

// piped says whether standard input is something other than a terminal.
func (a *app) piped() bool { return !term.IsTerminal(int(a.stdin.Fd())) }

// terminal says whether w is one.
func terminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// finish waits for an operation with its progress shown under a title.
func (a *app) finish(ctx context.Context, op *client.Operation, title string) error {
	bar := a.progress(title)
	err := op.Wait(ctx, bar.operation)
	bar.close()
	if ctx.Err() != nil && err != nil {
		return a.abandon(ctx, op)
	}
	// The server did what it could, and says what it left out.
	warnings, _ := op.Metadata["warnings"].([]any)
	for _, warning := range warnings {
		fmt.Fprintln(a.stderr, "Warning:", warning)
	}
	return err
}

// done is finish for a call that starts an operation.
func (a *app) done(ctx context.Context, title string, op *client.Operation, err error) error {
	if err != nil {
		return err
	}
	return a.finish(ctx, op, title)
}
