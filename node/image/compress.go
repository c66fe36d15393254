package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"muster/state"
)

// compressing are the programs that compress: they read standard input and write
// standard output.
var compressing = map[Compression][]string{
	Gzip:  {"gzip", "-c", "-q", "-n"},
	Zstd:  {"zstd", "-c", "-q"},
	XZ:    {"xz", "-zc", "-q", "-T2", "--block-size=16MiB"},
	Bzip2: {"bzip2", "-zc", "-q"},
	LZMA:  {"xz", "-zc", "-q", "--format=lzma"},
}

// compress returns a writer that compresses into w. Its Close ends the data and
// waits for everything to be written; it does not close w. The same input gives
// the same output.
//
// Options are those of the program of the algorithm's name, so they need it.
func compress(ctx context.Context, w io.Writer, c Compression) (io.WriteCloser, error) {
	algorithm, options := c.split()
	if algorithm == None {
		return unclosed{w}, nil
	}
	words, known := compressing[algorithm]
	if !known {
		return nil, state.Errorf(state.ErrInvalid, "unknown compression algorithm %q: use gzip, xz, zstd, bzip2, lzma or none", algorithm)
	}
	if len(options) == 0 {
		switch algorithm {
		case Gzip:
			return gzip.NewWriterLevel(w, gzip.DefaultCompression)
		case Zstd:
			return zstd.NewWriter(w)
		}
	}
	path, err := exec.LookPath(words[0])
	if err == nil {
		return pourThrough(ctx, w, path, append(words[1:len(words):len(words)], options...)...)
	}
	switch {
	case algorithm == XZ && len(options) == 0:
		return xz.NewWriter(w)
	case algorithm == LZMA && len(options) == 0:
		return lzma.NewWriter(w)
	}
	return nil, state.Errorf(state.ErrInvalid, "compressing with %q needs the program %s, which is not installed on this member: install it, or use gzip, zstd, xz or none", c, words[0])
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// sink is a filter that runs as another process, from its writing end.
type sink struct {
	io.WriteCloser
	cmd    *exec.Cmd
	cancel context.CancelFunc
	out    *failing
	said   bytes.Buffer
	close  func() error
}

// pourThrough starts a program that writes to w what it makes of its input.
func pourThrough(ctx context.Context, w io.Writer, path string, args ...string) (*sink, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &sink{cmd: exec.CommandContext(ctx, path, args...), cancel: cancel, out: &failing{w: w}}
	s.cmd.Stdout = s.out
	s.cmd.Stderr = &limitedBuffer{Buffer: &s.said, left: 4096}
	s.cmd.Env = programEnv()
	s.close = sync.OnceValue(s.finish)
	in, err := s.cmd.StdinPipe()
	if err == nil {
		s.WriteCloser = in
		err = s.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return s, nil
}

// Close ends the input and waits for the output to be written.
func (s *sink) Close() error { return s.close() }

func (s *sink) finish() error {
	defer s.cancel()
	err := s.WriteCloser.Close()
	if waitErr := s.cmd.Wait(); waitErr != nil {
		err = fmt.Errorf("%s: %w: %s", s.cmd.Path, waitErr, strings.TrimSpace(s.said.String()))
	}
	// A full disk ends the program too; the disk is what the caller must hear of.
	if s.out.err != nil {
		return s.out.err
	}
	return err
}

// failing remembers the first error of a writer. It is read only after the
// goroutine that writes has ended.
type failing struct {
	w   io.Writer
	err error
}

func (f *failing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n, err
}
