package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// Publish packs a container's tree as a new unified image. The same tree and
// metadata give the same fingerprint. Device nodes and sockets are left out: an
// image may not hold them.
//
// On failure nothing is kept. A full disk and a file whose owner spec.IDs does
// not cover are state.ErrConflict.
func (s *Store) Publish(ctx context.Context, spec PublishSpec) (Info, error) {
	if spec.Compression == "" {
		spec.Compression = Gzip
	}
	if err := spec.Metadata.Validate(); err != nil {
		return Info{}, err
	}
	stage, err := s.newStage()
	if err != nil {
		return Info{}, err
	}
	defer stage.discard()
	file, err := stage.create(RoleUnified)
	if err != nil {
		return Info{}, err
	}
	defer file.Close()
	hash := sha256.New()
	out := io.MultiWriter(guarded{file, s.newRoom(file, "publish an image")}, hash)
	if err := pack(ctx, out, spec); err != nil {
		return Info{}, noRoom(interruptedOr(ctx, fmt.Errorf("publish an image: %w", err)))
	}
	if err := file.Sync(); err != nil {
		return Info{}, noRoom(fmt.Errorf("publish an image: %w", err))
	}
	stat, err := file.Stat()
	if err != nil {
		return Info{}, err
	}
	info := spec.Metadata.info()
	info.Fingerprint, info.Size = hex.EncodeToString(hash.Sum(nil)), stat.Size()
	return info, stage.commit(info.Fingerprint, false)
}

func interruptedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// pack writes the compressed tarball.
func pack(ctx context.Context, w io.Writer, spec PublishSpec) (err error) {
	compressed, err := compress(ctx, w, spec.Compression)
	if err != nil {
		return err
	}
	p := &packing{tar: tar.NewWriter(compressed), ids: spec.IDs, progress: spec.Progress, seen: map[inode]string{}}
	err = p.all(ctx, spec)
	if err == nil {
		err = p.tar.Close()
	}
	return errors.Join(err, compressed.Close())
}

type inode struct{ dev, ino uint64 }

// packing writes one tarball.
type packing struct {
	tar      *tar.Writer
	ids      IDMap
	progress func(int64)
	read     int64
	// seen are files with several names, by the first of them.
	seen map[inode]string
}

func (p *packing) all(ctx context.Context, spec PublishSpec) error {
	if err := p.metadata(ctx, spec); err != nil {
		return err
	}
	return p.tree(ctx, spec.RootFS, "rootfs", spec.IDs)
}

// metadata packs metadata.yaml and the templates.
func (p *packing) metadata(ctx context.Context, spec PublishSpec) error {
	metadata, err := spec.Metadata.Encode()
	if err != nil {
		return err
	}
	at := spec.Metadata.CreatedAt()
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "metadata.yaml", Mode: 0o644, Size: int64(len(metadata)), ModTime: at, Format: tar.FormatPAX}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	if _, err := p.tar.Write(metadata); err != nil {
		return err
	}
	if spec.TemplatesDir != "" {
		return p.tree(ctx, spec.TemplatesDir, "templates", IDMap{})
	}
	return nil
}

// tree packs a directory, in the order of names.
func (p *packing) tree(ctx context.Context, dir, prefix string, ids IDMap) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := prefix
		if relative != "." {
			name = prefix + "/" + relative
		}
		return p.entry(path, name, ids)
	})
}

func (p *packing) entry(path, name string, ids IDMap) error {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	header := &tar.Header{
		Name: name, Mode: int64(stat.Mode & 0o7777), ModTime: time.Unix(stat.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
	var err error
	if header.Uid, err = inside(ids.UIDs, stat.Uid); err == nil {
		header.Gid, err = inside(ids.GIDs, stat.Gid)
	}
	if err != nil {
		return state.Errorf(state.ErrConflict, "%s has an owner (%d:%d) outside the instance's id map", name, stat.Uid, stat.Gid)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = os.Readlink(path); err != nil {
			return err
		}
	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	case unix.S_IFREG:
		header.Typeflag, header.Size = tar.TypeReg, stat.Size
		if stat.Nlink > 1 {
			key := inode{uint64(stat.Dev), stat.Ino}
			if first, again := p.seen[key]; again {
				header.Typeflag, header.Size, header.Linkname = tar.TypeLink, 0, first
				return p.tar.WriteHeader(header)
			}
			p.seen[key] = name
		}
	default:
		return nil // devices and sockets
	}
	if err := p.xattrs(path, header, ids); err != nil {
		return err
	}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeReg {
		return p.content(path, header.Size)
	}
	return nil
}

// inside turns an id on disk into the container's.
func inside(ranges []IDRange, id uint32) (int, error) {
	if len(ranges) == 0 {
		return int(id), nil
	}
	for _, r := range ranges {
		if id >= r.Outside && id-r.Outside < r.Size {
			return int(id - r.Outside + r.Inside), nil
		}
	}
	return 0, errors.New("not mapped")
}

func (p *packing) xattrs(path string, header *tar.Header, ids IDMap) error {
	size, err := unix.Llistxattr(path, nil)
	if err != nil || size == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return err
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(path, list); err != nil {
		return &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if !carried(name) || name == aclDefault && header.Typeflag != tar.TypeDir {
			continue
		}
		value := make([]byte, maxXattr)
		count, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return &fs.PathError{Op: "get " + name + " of", Path: path, Err: err}
		}
		value, err = unshift(name, value[:count], ids)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", name, header.Name, err)
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[paxXattr+name] = string(value)
	}
	return nil
}

// unshift turns the ids inside an attribute into the container's.
func unshift(name string, value []byte, ids IDMap) ([]byte, error) {
	switch name {
	case capability:
		root, err := readCapability(value)
		if err != nil || root == 0 {
			return value, err
		}
		own, err := inside(ids.UIDs, root)
		return bindCapability(value, uint32(own)), err
	case aclAccess, aclDefault:
		if len(ids.UIDs) == 0 {
			return value, nil
		}
		entries, err := readACL(value)
		if err != nil {
			return nil, err
		}
		for i, entry := range entries {
			if entry.ID == aclUndefined {
				continue
			}
			ranges := ids.UIDs
			if entry.Tag == aclGroup {
				ranges = ids.GIDs
			}
			own, err := inside(ranges, entry.ID)
			if err != nil {
				return nil, err
			}
			entries[i].ID = uint32(own)
		}
		return writeACL(entries), nil
	}
	return value, nil
}

// content writes exactly size bytes: a file that shrank meanwhile is filled up
// with zeros, one that grew is cut.
func (p *packing) content(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	count, err := io.CopyBuffer(onlyWriter{p.tar}, io.LimitReader(onlyReader{file}, size), make([]byte, chunkSize))
	if err != nil {
		return err
	}
	for ; count < size; count++ {
		if _, err := p.tar.Write([]byte{0}); err != nil {
			return err
		}
	}
	p.read += size
	if p.progress != nil {
		p.progress(p.read)
	}
	return nil
}

// onlyWriter hides ReaderFrom, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }
