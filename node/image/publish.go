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
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// Publish packs a container's tree as a new unified image. The same tree and
// metadata give the same fingerprint. Sockets and the device nodes in /dev are
// left out: a container has nothing of either.
//
// On failure nothing is kept. A full disk and a file whose owner spec.IDs does
// not cover are state.ErrConflict.
func (s *Store) Publish(ctx context.Context, spec PublishSpec) (Info, error) {
	encoded, err := spec.Metadata.Encode()
	if err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := s.newStage()
	if err != nil {
		return Info{}, err
	}
	defer st.discard()
	file, err := st.create(RoleUnified)
	if err != nil {
		return Info{}, err
	}
	defer file.Close()
	room := s.newRoom(file, "store the image")
	if err := room.need(0); err != nil {
		return Info{}, err
	}
	hash := sha256.New()
	packed, err := compress(ctx, io.MultiWriter(guarded{file, room}, hash), spec.Compression)
	if err != nil {
		return Info{}, err
	}
	p := &packer{ctx: ctx, archive: tar.NewWriter(packed), spec: spec, links: map[inode]string{}, buffer: make([]byte, chunkSize)}
	err = p.pack(encoded)
	if err != nil {
		cancel() // of a compressor that nobody will read
	}
	if closeErr := packed.Close(); err == nil || errors.Is(err, unix.EPIPE) {
		err = closeErr
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return Info{}, noRoom(fmt.Errorf("publish: %w", err))
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return Info{}, err
	}
	fingerprint := hex.EncodeToString(hash.Sum(nil))
	if err := st.commit(fingerprint, false); err != nil {
		return Info{}, err
	}
	info := spec.Metadata.info()
	info.Fingerprint, info.Size = fingerprint, size
	return info, nil
}

// packer writes the tarball of an image.
type packer struct {
	ctx     context.Context //nolint:containedctx // a packer lives as long as the call that it was given to
	archive *tar.Writer
	spec    PublishSpec
	// links are the files with more than one name, by where they are.
	links  map[inode]string
	buffer []byte
	read   int64
}

type inode struct{ dev, ino uint64 }

func (p *packer) pack(metadata []byte) error {
	date := p.spec.Metadata.CreatedAt()
	if err := p.add(&tar.Header{Name: "metadata.yaml", Mode: 0o644, ModTime: date}, metadata); err != nil {
		return err
	}
	if err := p.packTemplates(date); err != nil {
		return err
	}
	root, err := unix.Open(p.spec.RootFS, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.spec.RootFS, Err: err}
	}
	if err := p.packDir(root, "rootfs"); err != nil {
		return err
	}
	return p.archive.Close()
}

func (p *packer) add(header *tar.Header, content []byte) error {
	header.Typeflag, header.Size = tar.TypeReg, int64(len(content))
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := p.archive.Write(content)
	return err
}

// packTemplates packs the files of the templates directory, through no symbolic
// link.
func (p *packer) packTemplates(date time.Time) error {
	held := map[string]bool{}
	if p.spec.TemplatesDir != "" {
		root, err := os.OpenRoot(p.spec.TemplatesDir)
		if err != nil {
			return err
		}
		defer root.Close()
		if err := p.archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "templates/", Mode: 0o755, ModTime: date}); err != nil {
			return err
		}
		err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			content, err := readLimitedIn(root, name, maxTemplate)
			if err != nil {
				return err
			}
			held[name] = true
			return p.add(&tar.Header{Name: "templates/" + name, Mode: 0o644, ModTime: date}, content)
		})
		if err != nil {
			return err
		}
	}
	for target, t := range p.spec.Metadata.Templates {
		if !held[t.Template] && t.rendered() {
			return state.Errorf(state.ErrInvalid, "the template of %s is missing: there is no templates/%s", shown(target), t.Template)
		}
	}
	return nil
}

// packDir packs an open directory and all below it, in the order of names, and
// closes it. Every name is resolved in the open directory that holds it, so that
// a container that still runs can't lead the packer out by swapping a directory
// for a link.
func (p *packer) packDir(fd int, name string) error {
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	header, err := p.header(name+"/", &st)
	if err != nil {
		return err
	}
	header.Typeflag = tar.TypeDir
	if err := p.dressed(fd, header); err != nil {
		return err
	}
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		// What vanishes while it is packed was not there.
		if err := p.packEntry(fd, base, name+"/"+base); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (p *packer) packEntry(parent int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	header, err := p.header(name, &st)
	if err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		at := inode{st.Dev, st.Ino}
		if first, again := p.links[at]; again {
			header.Typeflag, header.Linkname = tar.TypeLink, first
			return p.archive.WriteHeader(header)
		}
		p.links[at] = name
	}
	switch kind {
	case unix.S_IFDIR:
		fd, err := unix.Openat2(parent, base, &unix.OpenHow{
			Flags: unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC,
			// A mount below the tree is not the container's own.
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.EXDEV) {
			header.Typeflag, header.Name = tar.TypeDir, name+"/"
			return p.archive.WriteHeader(header)
		}
		if err != nil {
			return err
		}
		return p.packDir(fd, name)
	case unix.S_IFREG:
		return p.packFile(parent, base, header)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(parent, base, target)
		if err != nil {
			return err
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, string(target[:n])
		return p.archive.WriteHeader(header)
	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
		return p.archive.WriteHeader(header)
	case unix.S_IFCHR, unix.S_IFBLK:
		header.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			header.Typeflag = tar.TypeBlock
		}
		header.Devmajor, header.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		if uselessDevice(strings.TrimPrefix(name, "rootfs/"), kind == unix.S_IFCHR, header.Devmajor, header.Devminor) {
			return nil
		}
		return p.archive.WriteHeader(header)
	}
	return nil // a socket
}

func (p *packer) header(name string, st *unix.Stat_t) (*tar.Header, error) {
	uid, gid, err := p.spec.IDs.owner(name, st.Uid, st.Gid)
	if err != nil {
		return nil, err
	}
	return &tar.Header{
		Name: name, Uid: uid, Gid: gid, Mode: int64(st.Mode & 0o7777),
		// Whole seconds: a fraction would cost a block of its own for each file.
		ModTime: time.Unix(st.Mtim.Sec, 0),
	}, nil
}

// dressed adds the attributes of an open file to its header.
func (p *packer) dressed(fd int, header *tar.Header) error {
	attrs, err := xattrsAt(fd)
	if err == nil {
		attrs, err = p.spec.IDs.xattrs(header.Name, attrs)
	}
	for name, value := range attrs {
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[paxXattr+name] = string(value)
	}
	return err
}

func (p *packer) packFile(parent int, base string, header *tar.Header) error {
	// Whatever took the file's place meanwhile must not be followed, nor
	// waited for.
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path.Base(header.Name))
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return state.Errorf(state.ErrConflict, "%s changed while it was published: stop the container, then publish again", shown(header.Name))
	}
	header.Typeflag, header.Size = tar.TypeReg, st.Size
	if err := p.dressed(fd, header); err != nil {
		return err
	}
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	for left := st.Size; left > 0; {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		n, err := f.Read(p.buffer[:min(int64(len(p.buffer)), left)])
		if n == 0 && err == io.EOF {
			// It shrank; the header has promised more.
			clear(p.buffer)
			n = int(min(int64(len(p.buffer)), left))
		} else if err != nil {
			return err
		}
		if _, err := p.archive.Write(p.buffer[:n]); err != nil {
			return err
		}
		left -= int64(n)
		p.read += int64(n)
		if p.spec.Progress != nil {
			p.spec.Progress(p.read)
		}
	}
	return nil
}
