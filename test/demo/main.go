// Command demo shows a cluster of three members at work on real containers: it prints
// what it does, the commands that anyone could give, how long each took, and how long
// nobody could write when the leader was killed.
//
// It never uses the machine's own network, and leaves the machine as it was: also when
// a step fails, which ends it with status 1, or when it is interrupted (status 130).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds the whole, should something hang.
const patience = 5 * time.Minute

func main() { os.Exit(run()) }

func run() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "demo: needs root, because it runs real containers")
		return 1
	}
	program, err := os.Executable()
	if err == nil {
		// The lab would build the programs; root may have no Go.
		err = os.Setenv("MUSTER_TEST_BIN", filepath.Dir(program))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	// A reader that goes away (`make demo | head`) must not end us without the clean-up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := newStage(ctx)
	began := time.Now()
	s.run(func() { play(s) })
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		fmt.Fprintln(os.Stderr, "demo: not done within", patience)
		return 1
	case s.Failed():
		fmt.Fprintln(os.Stderr, "demo: failed")
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; the machine is as it was")
		return 130
	}
	s.summary(time.Since(began))
	return 0
}
