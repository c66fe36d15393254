package image

import (
	"bufio"
	"context"
	"io"

	"muster/state"
)

// contents reads the entries of one file of an image, whatever it is compressed
// with.
type contents struct {
	role   Role
	limits limits
	visit  func(e entry, body io.Reader) error
}

// read walks the tarball in r to its end. A squashfs or a disk is
// state.ErrInvalid: callers ask for the format first where those may come.
func (c *contents) read(ctx context.Context, r io.Reader) error {
	buffered := bufio.NewReaderSize(r, chunkSize)
	head, err := buffered.Peek(sniffed)
	if err != nil && err != io.EOF {
		return err
	}
	if len(head) == 0 {
		return state.Errorf(state.ErrInvalid, "%s is empty", c.role.file())
	}
	format := sniff(head)
	switch format.container {
	case squashfs:
		return state.Errorf(state.ErrInvalid, "%s is a squashfs: upload it as the root file system of a split image, with a metadata tarball", c.role.file())
	case disk:
		return state.Errorf(state.ErrInvalid, "%s is a virtual machine's disk: muster runs containers only", c.role.file())
	}
	plain, err := decompress(ctx, buffered, format.compression)
	if err != nil {
		return err
	}
	defer plain.Close()
	walk := &walk{role: c.role, limits: c.limits, visit: c.visit}
	if err := walk.run(ctx, plain); err != nil {
		return interrupted(ctx, err)
	}
	return nil
}
