package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/pkg/sftp"

	"muster/node/runtime"
	"muster/state"
)

// stream is a pipe without an end to what it holds: writers never wait.
type stream struct {
	ready *sync.Cond
	mu    sync.Mutex
	// held and closed are guarded by mu.
	held    []byte
	closed  bool
	readers int // guarded by mu; how many wait
}

func newStream() *stream {
	s := &stream{}
	s.ready = sync.NewCond(&s.mu)
	return s
}

func (s *stream) put(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, text...)
	s.ready.Broadcast()
}

// close ends the stream once it has been read.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.ready.Broadcast()
}

// starved reports whether somebody waits for what is not there.
func (s *stream) starved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readers > 0 && len(s.held) == 0
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.held) == 0 && !s.closed {
		s.readers++
		s.ready.Wait()
		s.readers--
	}
	if len(s.held) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.held)
	s.held = s.held[n:]
	return n, nil
}

// console is the container's console: nobody reads what is typed there.
type console struct {
	out     *stream
	closing sync.Once
	release func()
}

var _ runtime.Terminal = (*console)(nil)

// Read implements io.Reader.
func (c *console) Read(p []byte) (int, error) { return c.out.Read(p) }

// Write implements io.Writer.
func (c *console) Write(p []byte) (int, error) { return len(p), nil }

// Resize implements runtime.Terminal.
func (c *console) Resize(int, int) error { return nil }

// Close implements io.Closer.
func (c *console) Close() error {
	c.closing.Do(func() {
		c.out.close()
		c.release()
	})
	return nil
}

// RootFiles implements runtime.Runtime.
func (r *Runtime) RootFiles(_ context.Context, root string, _ *runtime.IDMap) (io.ReadWriteCloser, error) {
	if root == "" || root[0] != '/' {
		return nil, state.Errorf(state.ErrInvalid, "root file system %q: want an absolute path", root)
	}
	r.mu.Lock()
	handlers, ok := r.roots[root]
	if !ok {
		handlers = sftp.InMemHandler()
		for _, dir := range []string{"/tmp", "/etc", "/root"} {
			if err := handlers.FileCmd.Filecmd(sftp.NewRequest("Mkdir", dir)); err != nil {
				r.mu.Unlock()
				return nil, err
			}
		}
		r.roots[root] = handlers
	}
	r.mu.Unlock()
	ours, theirs := net.Pipe()
	conn := &fileServer{Conn: ours, done: make(chan struct{})}
	server := sftp.NewRequestServer(theirs, handlers)
	go func() {
		defer close(conn.done)
		_ = server.Serve()
		_ = server.Close()
	}()
	return conn, nil
}

// fileServer is a connection whose Close waits for the server behind it.
type fileServer struct {
	net.Conn
	done chan struct{}
}

// Close implements io.Closer.
func (f *fileServer) Close() error {
	err := f.Conn.Close()
	<-f.done
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
