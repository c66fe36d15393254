package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) consoleCommand() *cobra.Command {
	var showLog bool
	var kind string
	cmd := &cobra.Command{
		Use:   "console [REMOTE:]INSTANCE",
		Short: "Attach to an instance's console, or show what it wrote",
		Long: `Attach to an instance's console. Press ctrl-a and then q to leave it; ctrl-a
twice sends one ctrl-a.`,
		Example: `  muster console web
  muster console web --show-log`,
		Args:              between(1, 1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			if kind != "console" {
				return usagef(cmd, "type %q: only \"console\" is there, since containers have no screen", kind)
			}
			if !showLog {
				return a.attachConsole(cmd.Context(), t)
			}
			text, err := t.ConsoleLog(cmd.Context(), t.name)
			if err == nil {
				_, err = a.stdout.Write(text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&showLog, "show-log", false, "print the console's log instead")
	cmd.Flags().StringVarP(&kind, "type", "t", "console", "kind of console")
	return cmd
}

// attachConsole connects the terminal with an instance's console.
func (a *app) attachConsole(ctx context.Context, t thing) error {
	if !a.piped() {
		fmt.Fprint(a.stderr, "To leave the console, press: <ctrl>+a q\r\n")
	}
	restore, err := a.raw()
	if err != nil {
		return err
	}
	defer restore()
	post := api.InstanceConsolePost{}
	post.Width, post.Height = a.terminalSize()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := client.ExecStreams{Stdin: &leaver{from: a.stdin}, Stdout: a.stdout, Control: a.resizes(ctx)}
	err = t.Console(ctx, t.name, post, streams)
	if !a.piped() {
		fmt.Fprint(a.stderr, "\r\n")
	}
	return err
}

// ctrlA starts the key sequence that leaves a console.
const ctrlA = 0x01

// leaver passes keys on and ends with ErrDetached at ctrl-a q.
type leaver struct {
	from io.Reader
	// armed says that the last key was a ctrl-a, not yet passed on.
	armed bool
	left  bool
}

// Read implements io.Reader.
func (l *leaver) Read(p []byte) (int, error) {
	if l.left {
		return 0, client.ErrDetached
	}
	if len(p) < 2 {
		return 0, io.ErrShortBuffer
	}
	for {
		// A held-back ctrl-a may come out beside what is read now.
		keys := make([]byte, len(p)-1)
		n, err := l.from.Read(keys)
		out := l.filter(p[:0], keys[:n])
		if l.left && len(out) == 0 {
			return 0, client.ErrDetached
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}

func (l *leaver) filter(out, keys []byte) []byte {
	for _, key := range keys {
		switch {
		case l.armed && key == 'q':
			l.left = true
			return out
		case l.armed && key == ctrlA:
			out, l.armed = append(out, ctrlA), false
		case l.armed:
			out, l.armed = append(out, ctrlA, key), false
		case key == ctrlA:
			l.armed = true
		default:
			out = append(out, key)
		}
	}
	return out
}
