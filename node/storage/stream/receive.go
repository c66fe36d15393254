package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Place is where a stream is unpacked.
type Place interface {
	// Expect is told the names of all contents, in order. Those that it has
	// besides are to go.
	Expect(ctx context.Context, names []string) error
	// Begin opens a content for writing, made as its Start says.
	Begin(ctx context.Context, c Content) (*Target, error)
	// Leave closes a content. complete says that all of it is there.
	Leave(ctx context.Context, c Content, t *Target, complete bool) error
	// End is told that the stream was whole.
	End(ctx context.Context) error
}

// Target is a content open for writing. Nobody else can reach its directories.
type Target struct {
	RootFS string
	// Dir takes metadata.yaml and templates; empty if the volume has none.
	Dir string
	// Files is what is there now.
	Files *Manifest
	// Log is told every change of Files.
	Log *Log
}

// Receive unpacks a stream. After an error what came is kept, for the next
// stream to go on with.
func Receive(ctx context.Context, r io.Reader, place Place) (Stats, error) {
	in := newFrameReader(r)
	a := &applier{ctx: ctx, in: in}
	kind, payload, err := in.frame()
	if err != nil {
		return a.stats, notYet(err)
	}
	names, err := hello(kind, payload)
	if err != nil {
		return a.stats, err
	}
	if err := place.Expect(ctx, names); err != nil {
		return a.stats, err
	}
	for {
		kind, payload, err := in.frame()
		if err != nil {
			return a.stats, notYet(err)
		}
		switch kind {
		case frameContent:
			c, err := decodeContent(payload)
			if err != nil {
				return a.stats, err
			}
			if !slices.Contains(names, c.Name) {
				return a.stats, refused("content %q was not announced", c.Name)
			}
			if err := a.receive(c, place); err != nil { //nolint:contextcheck // it has the context
				return a.stats, err
			}
		case frameEnd:
			return a.stats, place.End(ctx)
		default:
			return a.stats, refused("frame %q between contents", kind)
		}
	}
}

func hello(kind byte, payload []byte) ([]string, error) {
	if err := checkVersion(kind, payload); err != nil {
		return nil, err
	}
	d := &decoder{b: payload}
	d.uint(version)
	var names []string
	for range d.uint(maxList) {
		name := d.string(maxName)
		if slices.Contains(names, name) {
			return nil, refused("content %q comes twice", name)
		}
		names = append(names, name)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	if len(names) == 0 || names[len(names)-1] != Live {
		return nil, refused("it has no volume, or not at its end")
	}
	return names, nil
}

func decodeContent(payload []byte) (Content, error) {
	d := &decoder{b: payload}
	c := Content{Start: Start(d.byte()), Name: d.string(maxName), Token: d.string(maxName), From: d.string(maxName)}
	return c, d.end()
}

// receive unpacks one content.
func (a *applier) receive(c Content, place Place) error {
	target, err := place.Begin(a.ctx, c)
	if err != nil {
		return err
	}
	err = a.open(target)
	if err == nil {
		err = a.content()
	}
	err = errors.Join(err, a.close(err))
	if err == nil {
		err = target.Log.Close()
	}
	// What came is kept even if ctx has ended.
	left := place.Leave(context.WithoutCancel(a.ctx), c, target, err == nil)
	return errors.Join(err, left)
}

// content reads and applies frames to the end of the content.
func (a *applier) content() error {
	for {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		kind, payload, err := a.in.frame()
		if err != nil {
			return notYet(err)
		}
		if a.file != nil && kind != frameData && kind != frameFile {
			return refused("%.100q has no end", a.file.entry.Path)
		}
		if kind == frameDigest {
			return a.finish(payload)
		}
		if err := a.frame(kind, payload); err != nil {
			return err
		}
	}
}

func (a *applier) frame(kind byte, payload []byte) error {
	switch kind {
	case frameEntry, frameAttr:
		e, err := decodeEntry(payload)
		if err != nil {
			return err
		}
		if e.Kind == KindPartial || e.Kind == KindUnknown || a.dir < 0 && top(e.Path) != nameRootFS {
			return refused("%.100q cannot be in this volume", e.Path)
		}
		if kind == frameAttr {
			return a.attributes(e)
		}
		return a.entry(e)
	case frameData:
		if len(payload) < 8 {
			return refused("a frame is too short")
		}
		return a.data(int64(binary.LittleEndian.Uint64(payload)), payload[8:])
	case frameFile:
		return a.endOfFile(payload)
	case frameRemove:
		path := string(payload)
		if err := checkPath(path); err != nil {
			return err
		}
		if path == nameRootFS {
			return refused("a volume keeps its root")
		}
		return a.remove(path)
	}
	return refused("frame %q in a content", kind)
}

// finish checks that the content is what the sender means.
func (a *applier) finish(payload []byte) error {
	if err := a.target.Files.whole(); err != nil {
		return err
	}
	if digest := a.target.Files.Digest(); string(payload) != string(digest[:]) {
		a.doubt = true
		return damaged("the content is not what was sent")
	}
	if err := a.times(); err != nil {
		a.doubt = true
		return fmt.Errorf("end a content: %w", err)
	}
	return nil
}
