package stream

import (
	"encoding/binary"
	"errors"
	"io"
)

// Inventory is what the receiver tells before a stream: what it has of the
// volume already, and the image that it could begin with.
type Inventory struct {
	// Image are the files of the image, nil if there is none.
	Image *Manifest
	// Contents are in the order in which they arrived.
	Contents []Have
}

// Have is a content at the receiver.
type Have struct {
	Name  string
	Token string
	// Complete says that it is a whole content, not a part of one.
	Complete bool
	// Files may be nil where it is not worth telling.
	Files *Manifest
}

// Write writes the inventory in the frames of a stream.
func (i *Inventory) Write(w io.Writer) error {
	out := newFrameWriter(w)
	if err := out.write(frameHello, binary.AppendUvarint(nil, version)); err != nil {
		return err
	}
	if i.Image != nil {
		if err := out.write(frameContent, []byte{byte(FromImage)}); err != nil {
			return err
		}
		if err := writeEntries(out, i.Image); err != nil {
			return err
		}
	}
	for _, have := range i.Contents {
		flags := byte(0)
		if have.Complete {
			flags |= 1
		}
		if have.Files != nil {
			flags |= 2
		}
		head := appendString(appendString([]byte{byte(FromItself), flags}, have.Name), have.Token)
		if err := out.write(frameContent, head); err != nil {
			return err
		}
		if have.Files != nil {
			if err := writeEntries(out, have.Files); err != nil {
				return err
			}
		}
	}
	if err := out.write(frameEnd); err != nil {
		return err
	}
	return out.flush()
}

func writeEntries(out *frameWriter, files *Manifest) error {
	var buf []byte
	for e := range files.listed() {
		buf = e.append(buf[:0])
		if err := out.write(frameEntry, buf); err != nil {
			return err
		}
	}
	return nil
}

// ReadInventory reads what Write wrote. Nothing at all is an empty inventory.
func ReadInventory(r io.Reader) (*Inventory, error) {
	in, i := newFrameReader(r), &Inventory{}
	kind, payload, err := in.frame()
	if errors.Is(err, io.EOF) {
		return i, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkVersion(kind, payload); err != nil {
		return nil, err
	}
	var files *Manifest
	for {
		kind, payload, err := in.frame()
		if err != nil {
			return nil, notYet(err)
		}
		switch kind {
		case frameContent:
			if files, err = i.head(payload); err != nil {
				return nil, err
			}
		case frameEntry:
			e, err := decodeEntry(payload)
			if err != nil {
				return nil, err
			}
			if files == nil {
				return nil, refused("an inventory lists files of no content")
			}
			if err := files.put(e); err != nil {
				return nil, err
			}
		case frameEnd:
			return i, nil
		default:
			return nil, refused("frame %q in an inventory", kind)
		}
	}
}

func (i *Inventory) head(payload []byte) (*Manifest, error) {
	d := &decoder{b: payload}
	if Start(d.byte()) == FromImage {
		i.Image = NewManifest()
		return i.Image, d.end()
	}
	flags := d.byte()
	have := Have{Name: d.string(maxName), Token: d.string(maxName), Complete: flags&1 != 0}
	if flags&2 != 0 {
		have.Files = NewManifest()
	}
	i.Contents = append(i.Contents, have)
	return have.Files, d.end()
}

func checkVersion(kind byte, payload []byte) error {
	v, n := binary.Uvarint(payload)
	if kind != frameHello || n <= 0 {
		return refused("it does not begin as it must")
	}
	if v != version {
		return refused("it is of version %d, this member knows %d; bring both members to the same release", v, version)
	}
	return nil
}

// notYet makes the end of the input between two frames the damage it is.
func notYet(err error) error {
	if errors.Is(err, io.EOF) {
		return damaged("it ended too early")
	}
	return err
}

func (i *Inventory) find(name string) *Have {
	for n := range i.Contents {
		if i.Contents[n].Name == name {
			return &i.Contents[n]
		}
	}
	return nil
}
