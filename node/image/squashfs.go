package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/state"
)

// A squashfs is read by unsquashfs of squashfs-tools, which runs with nothing
// of its own: the file comes as a descriptor and the listing goes through a
// pipe.

// checkSquashfs refuses a root file system that is cut off or unpacks to too
// much. It returns the bytes that its files have.
func checkSquashfs(ctx context.Context, f *os.File, limits limits) (int64, error) {
	if err := checkSuperblock(f); err != nil {
		return 0, err
	}
	var entries int
	var total int64
	err := unsquash(ctx, f, func(line squashLine) error {
		if entries++; entries > limits.entries {
			return state.Errorf(state.ErrInvalid, "the root file system holds more than %d entries", limits.entries)
		}
		if line.kind == '-' {
			if total += line.size; total > limits.bytes || line.size > limits.bytes {
				return state.Errorf(state.ErrInvalid, "the root file system unpacks to more than the %d bytes allowed here (reached at %s)", limits.bytes, shown(line.name))
			}
		}
		return nil
	}, "-lln")
	return total, err
}

// checkSuperblock compares the length that a squashfs says it has
// (bytes_used, at byte 40 of the superblock) with what came.
func checkSuperblock(f *os.File) error {
	super := make([]byte, 96)
	if _, err := f.ReadAt(super, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return state.Errorf(state.ErrInvalid, "the root file system is cut off: it has not even a superblock")
		}
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if major := binary.LittleEndian.Uint16(super[28:]); major != 4 {
		return state.Errorf(state.ErrInvalid, "the root file system is a squashfs of version %d; only version 4 can be read", major)
	}
	if used := binary.LittleEndian.Uint64(super[40:]); used > math.MaxInt64 || int64(used) > info.Size() {
		return state.Errorf(state.ErrInvalid, "the root file system is cut off: %d of its %d bytes came", info.Size(), used)
	}
	return nil
}

// squashLine is a line of unsquashfs -lln or -li.
type squashLine struct {
	kind byte
	size int64
	name string
}

// A name may hold a line break, and what follows it may look like a line of its
// own. That can only add entries, never hide one: each starts a line.
var squashEntry = regexp.MustCompile(`^([-dlpcbs])[-rwxsStT]{9} +\S+ +(\d+)(?:, *\d+)? +\d+-\d+-\d+ +\d+:\d+ (?:squashfs-root|rootfs)?/?(.*)`)

// unsquash runs unsquashfs on f and shows each line that it lists to visit.
func unsquash(ctx context.Context, f *os.File, visit func(squashLine) error, args ...string) error {
	path, err := exec.LookPath("unsquashfs")
	if err != nil {
		return state.Errorf(state.ErrInvalid, "a squashfs needs the program unsquashfs, which is not installed on this member: install squashfs-tools, or make the image with a tarball")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append(args, "-n", "-p", "2", "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = programEnv()
	cmd.Stderr = &limitedBuffer{Buffer: &said, left: 4096}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start unsquashfs: %w", err)
	}
	visitErr := visitLines(out, visit)
	if visitErr != nil {
		cancel()
	}
	waitErr := cmd.Wait()
	switch {
	case visitErr != nil:
		return visitErr
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case waitErr != nil && strings.Contains(said.String(), unix.ENOSPC.Error()):
		return noRoom(fmt.Errorf("unpack the root file system: %w", unix.ENOSPC))
	case waitErr != nil:
		last := strings.TrimSpace(said.String())
		last = last[strings.LastIndexByte(last, '\n')+1:]
		return state.Errorf(state.ErrInvalid, "the root file system is a damaged squashfs: %s", last)
	}
	return nil
}

func visitLines(out io.Reader, visit func(squashLine) error) error {
	lines := bufio.NewReaderSize(out, chunkSize)
	for {
		line, prefix, err := lines.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if m := squashEntry.FindSubmatch(line); m != nil {
			size, err := strconv.ParseInt(string(m[2]), 10, 64)
			if err != nil {
				size = math.MaxInt64 // more digits than a size can have
			}
			if err := visit(squashLine{kind: m[1][0], size: size, name: string(m[3])}); err != nil {
				return err
			}
		}
		for prefix && err == nil {
			_, prefix, err = lines.ReadLine()
		}
	}
}
