package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"muster/state"
)

// sniffed is how many bytes tell what a file is.
const sniffed = 512

// container is what a file holds once it is decompressed.
type container string

const (
	tarball  container = "tar"
	squashfs container = "squashfs"
	disk     container = "disk"
)

// format is what the first bytes of a file say about it.
type format struct {
	compression Compression
	container   container
}

// magics are the first bytes of what images come as. A file that starts with
// none of them is taken for a plain tarball, which old writers do not mark.
var magics = []struct {
	magic string
	format
}{
	{"\x1f\x8b", format{Gzip, tarball}},
	{"\xfd7zXZ\x00", format{XZ, tarball}},
	{"\x28\xb5\x2f\xfd", format{Zstd, tarball}},
	{"BZh", format{Bzip2, tarball}},
	// The properties that every writer of lzma uses, and a dictionary of at
	// least 64 KiB. The format has no magic number (file(1) looks for the same).
	{"\x5d\x00\x00", format{LZMA, tarball}},
	{"hsqs", format{None, squashfs}},
	{"QFI\xfb", format{None, disk}},
}

func sniff(head []byte) format {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format
		}
	}
	return format{None, tarball}
}

// ending returns the end of a name for a file of this format.
func (f format) ending() string {
	if f.container == squashfs {
		return ".squashfs"
	}
	return f.compression.ending()
}

func (c Compression) ending() string {
	algorithm, _ := c.split()
	switch algorithm {
	case Gzip:
		return ".tar.gz"
	case XZ:
		return ".tar.xz"
	case Zstd:
		return ".tar.zst"
	case Bzip2:
		return ".tar.bz2"
	case LZMA:
		return ".tar.lzma"
	}
	return ".tar"
}

// Images are made by anybody, so what they may ask of memory is bounded: the
// windows of the largest levels of zstd (with --long) and xz fit.
const (
	maxZstdWindow = 128 << 20
	maxXZMemory   = "512MiB"
)

// decompress returns what r holds. Closing it ends and waits for whatever it
// started. Broken data are state.ErrInvalid.
//
// xz and bzip2 are unpacked by the programs of that name when they are
// installed, since the Go libraries are slow (DESIGN.md has the figures).
func decompress(ctx context.Context, r io.Reader, c Compression) (io.ReadCloser, error) {
	switch c {
	case Gzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(r, chunkSize))
		if err != nil {
			return nil, broken(c, err)
		}
		return &decoded{Reader: z, close: z.Close, compression: c}, nil
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, broken(c, err)
		}
		return &decoded{Reader: z, close: func() error { z.Close(); return nil }, compression: c}, nil
	case XZ:
		if path, err := exec.LookPath("xz"); err == nil {
			return pipeThrough(ctx, r, c, path, "-dc", "-q", "-T0", "--memlimit-decompress="+maxXZMemory)
		}
		z, err := xz.NewReader(bufio.NewReaderSize(r, chunkSize))
		if err != nil {
			return nil, broken(c, err)
		}
		return &decoded{Reader: z, close: func() error { return nil }, compression: c}, nil
	case LZMA:
		if path, err := exec.LookPath("xz"); err == nil {
			return pipeThrough(ctx, r, c, path, "-dc", "-q", "--format=lzma", "--memlimit-decompress="+maxXZMemory)
		}
		z, err := lzma.NewReader(bufio.NewReaderSize(r, chunkSize))
		if err != nil {
			return nil, broken(c, err)
		}
		return &decoded{Reader: z, close: func() error { return nil }, compression: c}, nil
	case Bzip2:
		if path, err := exec.LookPath("bzip2"); err == nil {
			return pipeThrough(ctx, r, c, path, "-dc", "-q")
		}
		return &decoded{Reader: bzip2.NewReader(bufio.NewReaderSize(r, chunkSize)), close: func() error { return nil }, compression: c}, nil
	}
	return io.NopCloser(r), nil
}

// broken says that compressed data are damaged. An error that has a kind came
// from below the decompressor and stays what it is.
func broken(c Compression, err error) error {
	if state.Kind(err) != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return state.Errorf(state.ErrInvalid, "the %s data end too early", c)
	}
	return state.Errorf(state.ErrInvalid, "the %s data are damaged: %w", c, err)
}

// decoded gives the errors of a decompressor their kind.
type decoded struct {
	io.Reader
	close       func() error
	compression Compression
}

func (d *decoded) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = broken(d.compression, err)
	}
	return n, err
}

func (d *decoded) Close() error { return d.close() }

// program is a filter that runs as another process.
type program struct {
	cmd         *exec.Cmd
	out         io.ReadCloser
	said        bytes.Buffer
	compression Compression
	cancel      context.CancelFunc
	wait        func() error
}

// pipeThrough starts a program that reads r and whose output is returned.
func pipeThrough(ctx context.Context, r io.Reader, c Compression, path string, args ...string) (*program, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &program{cmd: exec.CommandContext(ctx, path, args...), compression: c, cancel: cancel}
	p.cmd.Stdin = r
	p.cmd.Stderr = &limitedBuffer{Buffer: &p.said, left: 4096}
	p.cmd.Env = programEnv()
	p.wait = sync.OnceValue(p.cmd.Wait)
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.out = out
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// Read returns the program's output; that the program failed is told in place
// of the end.
func (p *program) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err == nil || n > 0 {
		return n, nil
	}
	if waitErr := p.wait(); waitErr != nil {
		if said := strings.TrimSpace(p.said.String()); said != "" {
			waitErr = errors.New(said)
		}
		return 0, broken(p.compression, waitErr)
	}
	return 0, err
}

// Close ends the program if it still runs, and waits for it.
func (p *program) Close() error {
	p.cancel()
	_ = p.out.Close()
	_ = p.wait() // it was told to end, so how it ended says nothing
	return nil
}

// programEnv is the environment of the programs that images pass through: their
// messages in English, and no options from outside (XZ_OPT, BZIP2 …).
func programEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
}

// limitedBuffer keeps the first bytes written and forgets the rest.
type limitedBuffer struct {
	*bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.left)]
	b.left -= len(keep)
	_, _ = b.Buffer.Write(keep)
	return len(p), nil
}
