package cluster

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"muster/node/runtime"
)

// command is a process of which only the end is known.
type command struct {
	runtime.Process

	done chan struct{}
}

func (c command) Done() <-chan struct{} { return c.done }

// What a command has written before it ended arrives, however late somebody reads it, and
// although a descendant holds its output open.
func TestOutputOutlivesItsCommand(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	process := command{done: make(chan struct{})}
	written := bytes.Repeat([]byte("0123456789abcdef"), 4000)
	if _, err := w.Write(written); err != nil {
		t.Fatal(err)
	}
	output := pipe{r: r}.drained(process)
	close(process.done)
	var read bytes.Buffer
	buffer := make([]byte, 20000)
	for {
		time.Sleep(2 * drainGrace) // the client is slow
		n, err := output.Read(buffer)
		read.Write(buffer[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read.Bytes(), written) {
		t.Errorf("%d bytes of output arrive; want %d", read.Len(), len(written))
	}
}

// A client that has gone doesn't keep a command from ending, whatever its descendants
// go on writing.
func TestOutputOfNobody(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	process := command{done: make(chan struct{})}
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		for {
			if _, err := w.Write([]byte("y")); err != nil {
				return
			}
		}
	}()
	over := make(chan struct{})
	output := pipe{r: r}.drained(process)
	go func() { defer close(over); output.discard() }()
	time.Sleep(20 * time.Millisecond)
	close(process.done)
	select {
	case <-over:
	case <-time.After(10 * time.Second):
		t.Error("the output of a command that has ended is read for ever")
	}
	_ = r.Close()
	<-writing
	_ = w.Close()
}
