package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"muster/state"
)

// unsquashfs finds the program that unpacks a squashfs.
func unsquashfs() (string, error) {
	path, err := exec.LookPath("unsquashfs")
	if err != nil {
		return "", state.Errorf(state.ErrConflict, "this image is a squashfs and unsquashfs is not installed: \"apt-get install squashfs-tools\"")
	}
	return path, nil
}

// inspectSquashfs reports whether the file is a squashfs, and refuses one that an
// image may not hold.
func (u *upload) inspectSquashfs(ctx context.Context, file *os.File) (bool, error) {
	head := make([]byte, sniffed)
	count, err := file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	if sniff(head[:count]).container != squashfs {
		return false, nil
	}
	program, err := unsquashfs()
	if err != nil {
		return true, err
	}
	var failure bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-lln", file.Name())
	cmd.Env, cmd.Stderr = programEnv(), &failure
	out, err := cmd.StdoutPipe()
	if err != nil {
		return true, err
	}
	if err := cmd.Start(); err != nil {
		return true, err
	}
	refused := u.checkListing(out)
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil && refused == nil {
		return true, interrupted(ctx, state.Errorf(state.ErrInvalid, "the root file system is a damaged squashfs: %s", firstLine(failure.String())))
	}
	return true, refused
}

// checkListing reads the lines of unsquashfs -lln: mode, owner, size, date, time,
// name.
func (u *upload) checkListing(listing io.Reader) error {
	lines := bufio.NewScanner(listing)
	lines.Buffer(nil, 64<<10)
	entries, total := 0, int64(0)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		name := strings.TrimPrefix(fields[5], "squashfs-root")
		switch fields[0][0] {
		case 'c', 'b':
			return state.Errorf(state.ErrInvalid, "the root file system holds an entry %s that is a device node: make the image without device nodes", shown(name))
		case '-':
			var size int64
			if _, err := fmt.Sscan(fields[2], &size); err == nil {
				total += size
			}
		}
		if entries++; entries > u.store.limits.entries {
			return state.Errorf(state.ErrInvalid, "the root file system holds more than %d entries", u.store.limits.entries)
		}
		if total > u.store.limits.bytes {
			return state.Errorf(state.ErrInvalid, "the root file system unpacks to more than the %d bytes allowed here", u.store.limits.bytes)
		}
	}
	return lines.Err()
}

// unpackSquashfs fills dir, which does not exist yet.
func unpackSquashfs(ctx context.Context, file, dir string) error {
	program, err := unsquashfs()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "-n", "-q", "-d", dir, file)
	cmd.Env = programEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "No space left") {
			return state.Errorf(state.ErrConflict, "unpack the root file system: no space left on device: free some space on this member")
		}
		return interrupted(ctx, fmt.Errorf("unpack the root file system: %w: %s", err, firstLine(string(out))))
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
