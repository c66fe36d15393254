package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// edit lets the user change a text and apply it. Without a terminal, the new
// text is read from standard input. When apply refuses, the user may go on
// editing where they were; an unchanged text is not applied.
func (a *app) edit(ctx context.Context, current []byte, apply func(text []byte) error) error {
	if a.piped() {
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return err
		}
		return apply(text)
	}
	file, err := os.CreateTemp("", "muster-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(current)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	for {
		if err := a.openEditor(ctx, file.Name()); err != nil {
			return fmt.Errorf("editor: %w", err)
		}
		text, err := os.ReadFile(file.Name())
		if err != nil {
			return err
		}
		if bytes.Equal(text, current) {
			a.say("Nothing was changed")
			return nil
		}
		if err = apply(text); err == nil || ctx.Err() != nil {
			return err
		}
		fmt.Fprintln(a.stderr, "Error:", err)
		fmt.Fprint(a.stderr, "Press enter to edit again, or ctrl-c to give up: ")
		if _, err := a.line(ctx); err != nil {
			return err
		}
	}
}

// line reads one line from the terminal, or gives up with ctx.
func (a *app) line(ctx context.Context) (string, error) {
	type answer struct {
		text string
		err  error
	}
	read := make(chan answer, 1)
	// A read from a terminal can't be interrupted; on ctrl-c the process ends
	// with it.
	go func() {
		text, err := bufio.NewReader(a.stdin).ReadString('\n')
		read <- answer{strings.TrimSpace(text), err}
	}()
	select {
	case got := <-read:
		return got.text, got.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (a *app) openEditor(ctx context.Context, name string) error {
	editor := a.getenv("VISUAL")
	if editor == "" {
		editor = a.getenv("EDITOR")
	}
	if editor == "" {
		for _, candidate := range []string{"editor", "vi", "nano"} {
			if _, err := exec.LookPath(candidate); err == nil {
				editor = candidate
				break
			}
		}
	}
	if editor == "" {
		return errors.New("none found: set EDITOR, or give the new text on standard input")
	}
	// EDITOR may have arguments, and is the user's own to be run by a shell.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$0"`, name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	return cmd.Run()
}

// slowInput is how long standard input may stay silent before we say what we
// are waiting for.
const slowInput = 2 * time.Second

// optionalInput reads standard input, unless that is a terminal: then there is
// none.
func (a *app) optionalInput(what string) ([]byte, error) {
	if !a.piped() {
		return nil, nil
	}
	waiting := time.AfterFunc(slowInput, func() {
		fmt.Fprintf(a.stderr, "Reading %s from standard input (give </dev/null if there is none)\n", what)
	})
	defer waiting.Stop()
	text, err := io.ReadAll(a.stdin)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return text, nil
}
