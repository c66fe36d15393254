package image

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"

	"muster/state"
)

// contents reads one tarball of an image, compressed or not.
type contents struct {
	role   Role
	limits limits
	visit  func(e entry, body io.Reader) error
	// stop ends a read of the data that waits; nil when reads never wait.
	stop func()
}

// read checks every entry and shows those of the image to visit. It reads to
// the end of the data, so that whatever is cut off is noticed.
func (c contents) read(ctx context.Context, r io.Reader) error {
	head := bufio.NewReaderSize(r, sniffed)
	first, err := head.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f := sniff(first)
	if f.container != tarball {
		return c.role.refuse(f)
	}
	// A program reads from a file by itself when nothing stands between.
	source := r
	if seeker, ok := r.(io.Seeker); ok {
		if _, err := seeker.Seek(0, io.SeekStart); err != nil {
			return err
		}
	} else {
		source = head
	}
	data, err := decompress(ctx, source, f.compression)
	if err != nil {
		return err
	}
	w := walk{role: c.role, limits: c.limits, visit: c.visit}
	err = w.run(ctx, bufio.NewReaderSize(data, chunkSize))
	if c.stop != nil {
		c.stop()
	}
	return cmp.Or(interruptedBy(ctx, err), data.Close())
}

// interruptedBy returns why ctx ended in place of the error that came of it.
func interruptedBy(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// refuse says why a part that is no tarball cannot be taken.
func (r Role) refuse(f format) error {
	if f.container == disk {
		return state.Errorf(state.ErrInvalid, "%s is a virtual machine's disk (qcow2): muster runs containers only", r.file())
	}
	return state.Errorf(state.ErrInvalid, "%s is a squashfs; only the root file system of a split image may be one", r.file())
}

// manifest collects what the checks of a whole image need of its metadata.
type manifest struct {
	metadata  Metadata
	found     bool
	templates map[string]bool
	rootFS    bool
}

// note is called for every entry of an image.
func (m *manifest) note(e entry, body io.Reader) error {
	switch e.section {
	case metadataFile:
		data, err := io.ReadAll(io.LimitReader(body, MaxMetadata+1))
		if err != nil {
			return err
		}
		m.metadata, err = ParseMetadata(data)
		m.found = true
		return err
	case templates:
		if m.templates == nil {
			m.templates = map[string]bool{}
		}
		if e.isRegular() {
			if e.Size > maxTemplate {
				return state.Errorf(state.ErrInvalid, "the template %s has %d bytes; at most %d are allowed", shown(e.name), e.Size, maxTemplate)
			}
			m.templates[e.name] = true
		}
	case rootFS:
		m.rootFS = true
	}
	return nil
}

// complete reports what an image lacks; role is the part that was read last.
func (m *manifest) complete(role Role) error {
	if !m.found {
		return state.Errorf(state.ErrInvalid, "%s holds no metadata.yaml", role.file())
	}
	if !m.rootFS && role == RoleUnified {
		return state.Errorf(state.ErrInvalid, "the image file holds no rootfs directory")
	}
	for target, t := range m.metadata.Templates {
		if !m.templates[t.Template] && t.rendered() {
			return state.Errorf(state.ErrInvalid, "the template of %s is missing: there is no templates/%s", shown(target), t.Template)
		}
	}
	return nil
}
