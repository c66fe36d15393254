package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"muster/cmd/muster/table"
	"muster/test/lab"
)

// stage is what the demo plays on: the lab's T, and the list of what was done.
type stage struct {
	ctx context.Context //nolint:containedctx // lab.T hands it out, as a test does
	// steps are added to by one goroutine at a time: the play, and then its end.
	steps []step

	mu       sync.Mutex
	cleanups []func() // guarded by mu
	failed   bool     // guarded by mu
	// ending is set when the clean-up begins: what fails from then on is told even
	// though ctx is done. Guarded by mu.
	ending bool
}

// step is something that was done.
type step struct {
	what string
	took time.Duration
}

var _ lab.T = (*stage)(nil)

func newStage(ctx context.Context) *stage { return &stage{ctx: ctx} }

// run calls play, and then whatever was given to Cleanup, however play ended.
func (s *stage) run(play func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.end()
		play()
	}()
	<-done
}

func (s *stage) end() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	began := time.Now()
	s.cleanUp()
	s.record("stop the members and remove what is theirs", time.Since(began))
}

// cleanUp calls the last function and then the others, even when it ends its
// goroutine.
func (s *stage) cleanUp() {
	s.mu.Lock()
	count := len(s.cleanups)
	if count == 0 {
		s.mu.Unlock()
		return
	}
	last := s.cleanups[count-1]
	s.cleanups = s.cleanups[:count-1]
	s.mu.Unlock()
	defer s.cleanUp()
	last()
}

// record notes and prints that something was done.
func (s *stage) record(what string, took time.Duration) {
	s.steps = append(s.steps, step{what, took})
	fmt.Printf("%-58s %7d ms\n", what, took.Milliseconds())
}

// summary prints the list of what was done.
func (s *stage) summary(total time.Duration) {
	d := table.Data{Header: []string{"STEP", "MILLISECONDS"}}
	for _, each := range append(s.steps, step{"all of it", total}) {
		d.Rows = append(d.Rows, []string{each.what, fmt.Sprintf("%12d", each.took.Milliseconds())})
	}
	fmt.Println("\nSummary")
	if err := table.Render(os.Stdout, "compact", d); err != nil {
		s.Error(err)
	}
}

// Helper implements lab.T.
func (s *stage) Helper() {}

// Context implements lab.T.
func (s *stage) Context() context.Context { return s.ctx }

// TempDir implements lab.T.
func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "muster-demo-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Error(err)
		}
	})
	return dir
}

// Cleanup implements lab.T.
func (s *stage) Cleanup(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, do)
}

// Log implements lab.T.
func (s *stage) Log(args ...any) { s.Logf("%s", fmt.Sprint(args...)) }

// Logf implements lab.T.
func (s *stage) Logf(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "demo:", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Error implements lab.T.
func (s *stage) Error(args ...any) { s.Errorf("%s", fmt.Sprint(args...)) }

// Errorf implements lab.T.
func (s *stage) Errorf(format string, args ...any) {
	s.mu.Lock()
	interrupted := s.ctx.Err() != nil && !s.ending
	s.failed = s.failed || !interrupted
	s.mu.Unlock()
	if !interrupted {
		s.Logf(format, args...)
	}
}

// Fatal implements lab.T.
func (s *stage) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// Fatalf implements lab.T.
func (s *stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

// Skip implements lab.T. A demo that shows nothing has failed.
func (s *stage) Skip(args ...any) { s.Fatal(args...) }

// Failed implements lab.T.
func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
