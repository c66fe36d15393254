package main

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

// A daemon that starts is asked again until it listens; where none is, nobody waits.
func TestADaemonThatStartsIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	// asked gives one answer after the other.
	asked := func(answers ...error) (count int, err error) {
		err = onceItAnswers(t.Context(), dir, func() error {
			count++
			return answers[count-1]
		})
		return count, err
	}
	absent, refused, other := fmt.Errorf("dial: %w", fs.ErrNotExist), fmt.Errorf("dial: %w", unix.ECONNREFUSED), errors.New("it has its reasons")
	if count, err := asked(absent, refused, nil); err != nil || count != 3 {
		t.Errorf("a daemon that starts was asked %d times: %v; want 3 and its answer", count, err)
	}
	if count, err := asked(absent, other, nil); !errors.Is(err, other) || count != 2 {
		t.Errorf("a daemon that refuses was asked %d times: %v; want 2 and what it says", count, err)
	}
	unlock()
	if count, err := asked(absent, nil); !errors.Is(err, absent) || count != 1 {
		t.Errorf("without a daemon %d requests were made: %v; want one, and that nobody listens", count, err)
	}
}
