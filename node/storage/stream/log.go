package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Log keeps the manifest of a content that is being received beside it, so that
// a daemon that was killed goes on where it was. Every change of a file is noted
// before it is made and again when it is done: what was begun is sent again.
//
// It is not synced: after a power loss the files themselves are looked at
// (Scan), because their data may be missing as well.
type Log struct {
	path string
	file *os.File
	out  *frameWriter
	enc  []byte
}

// CreateLog makes a log at path that says what the manifest says.
func CreateLog(path string, files *Manifest) (*Log, error) {
	// A crash leaves the whole log or none.
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	out := newFrameWriter(f)
	err = writeEntries(out, files)
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Log{path: path, file: f, out: out}, nil
}

// OpenLog reads a log and goes on with it. What a crash cut off at its end is
// dropped. A log that is not there is fs.ErrNotExist.
func OpenLog(path string) (*Log, *Manifest, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, err
	}
	in, files := newFrameReader(f), NewManifest()
	if err := replay(in, files); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	if err := f.Truncate(in.read); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	out := newFrameWriter(f)
	out.next = in.next
	return &Log{path: path, file: f, out: out}, files, nil
}

func replay(in *frameReader, files *Manifest) error {
	for {
		kind, payload, err := in.frame()
		if errors.Is(err, io.EOF) || errors.Is(err, ErrDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameEntry:
			e, err := decodeEntry(payload)
			if err != nil {
				return err
			}
			if err := files.put(e); err != nil {
				return err
			}
		case frameTouch:
			if err := files.touch(string(payload)); err != nil {
				return err
			}
		case frameRemove:
			files.drop(string(payload))
		}
	}
}

func (l *Log) put(e *Entry) error {
	l.enc = e.append(l.enc[:0])
	return l.out.write(frameEntry, l.enc)
}

func (l *Log) touch(path string) error {
	if err := l.out.write(frameTouch, []byte(path)); err != nil {
		return err
	}
	return l.out.flush()
}

func (l *Log) drop(path string) error { return l.out.write(frameRemove, []byte(path)) }

// Close writes out what is left. It may be called twice.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return errors.Join(l.out.flush(), f.Close())
}

// doubt removes the log: what it says may not be so.
func (l *Log) doubt() error { return errors.Join(l.Close(), os.Remove(l.path)) }
