package coord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// checkMeta refuses metadata of raft-wal that can't be read, or not be written any more: it
// holds the log's term and vote too. It is in a bbolt file, which is mapped into memory and has
// few checksums: bbolt follows any page number in it, and a file that is cut short ends the
// process. So a copy in memory is read and written, where a fault does no harm.
func checkMeta(path string) (err error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	if len(content) == 0 {
		return fmt.Errorf("%s is empty", name) // raft-wal gives it its name when it is whole
	}
	if err := checkPages(content); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	trial := os.NewFile(uintptr(fd), name)
	defer func() { _ = trial.Close() }()
	if _, err := trial.Write(content); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s can't be read: %v", name, p)
		}
	}()
	if err := tryMeta(fmt.Sprintf("/proc/self/fd/%d", fd), int64(len(content))); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// tryMeta reads and writes such a file.
func tryMeta(path string, size int64) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true})
	if err != nil {
		return err
	}
	buckets := []string{metadb.MetaBucket, metadb.StableBucket}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > size {
			return fmt.Errorf("it has %d bytes of %d", size, tx.Size())
		}
		for _, name := range buckets {
			bucket := tx.Bucket([]byte(name))
			if bucket == nil {
				return fmt.Errorf("it has no part %q", name)
			}
			if err := bucket.ForEach(func(key, value []byte) error { return readable(key, value, size) }); err != nil {
				return err
			}
		}
		return nil
	})
	// Each write frees the pages of the one before.
	for n := 0; n < 4 && err == nil; n++ {
		err = db.Update(func(tx *bbolt.Tx) error {
			var failed error
			for _, name := range buckets {
				failed = errors.Join(failed, tx.Bucket([]byte(name)).Put([]byte("trial"), []byte{byte(n)}))
			}
			return failed
		})
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	err = db.View(func(tx *bbolt.Tx) error {
		// A list of free pages with some behind the end lets the file grow without bound.
		if tx.Size() > 4*size {
			return fmt.Errorf("it would grow to %d bytes", tx.Size())
		}
		var wrong error
		for err := range tx.Check() {
			wrong = errors.Join(wrong, err)
		}
		return wrong
	})
	return errors.Join(err, db.Close())
}

// readable reads a key and a value, so that a fault comes here and not in a goroutine of bbolt.
func readable(key, value []byte, size int64) error {
	if int64(len(key)) > size || int64(len(value)) > size {
		return errors.New("it holds a value that is longer than itself")
	}
	sum := byte(0)
	for _, part := range [][]byte{key, value} {
		for _, b := range part {
			sum ^= b
		}
	}
	runtime.KeepAlive(sum)
	return nil
}

// checkPages refuses a file with pages that are longer than itself, or whose list of free pages is
// none: bbolt takes as much memory as their heads say, and writes to the pages that the list names.
//
// The layout is bbolt's: a page begins with its number, a word of flags, a count, and how many
// pages more it has; the first two pages hold, behind that, a magic number, a version, the size of
// a page, flags, the root (two words), the page of the list, how many pages there are, the number
// of the transaction, and a checksum. The one with the greater number that is whole counts.
func checkPages(content []byte) error {
	const head, magic, listed = pageHead, 0xed0cdaed, 0x10
	var root, list, pages, newest uint64
	size := uint64(os.Getpagesize())
	for n := range uint64(2) {
		at := n * size
		if uint64(len(content)) < at+head+64 {
			return errors.New("it is cut short")
		}
		meta := content[at+head:]
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:56])
		if binary.LittleEndian.Uint32(meta) != magic || binary.LittleEndian.Uint64(meta[56:]) != sum.Sum64() || uint64(binary.LittleEndian.Uint32(meta[8:])) != size {
			continue
		}
		if number := binary.LittleEndian.Uint64(meta[48:]); pages == 0 || number > newest {
			root, list, pages, newest = binary.LittleEndian.Uint64(meta[16:]), binary.LittleEndian.Uint64(meta[32:]), binary.LittleEndian.Uint64(meta[40:]), number
		}
	}
	switch {
	case pages == 0:
		return errors.New("neither of its heads is whole")
	case pages > uint64(len(content))/size:
		return fmt.Errorf("it has %d bytes of %d", len(content), pages*size)
	case list < 2 || list >= pages:
		return errors.New("its list of free pages is nowhere")
	}
	page := content[list*size:]
	count, more := uint64(binary.LittleEndian.Uint16(page[10:])), uint64(binary.LittleEndian.Uint32(page[12:]))
	if binary.LittleEndian.Uint64(page) != list || binary.LittleEndian.Uint16(page[8:]) != listed || list+more >= pages || head+8*count > (1+more)*size {
		return errors.New("its list of free pages is none")
	}
	for id := range pages {
		page := content[id*size:]
		if more := uint64(binary.LittleEndian.Uint32(page[12:])); binary.LittleEndian.Uint64(page) == id && id+more >= pages {
			return fmt.Errorf("page %d says that it has %d more", id, more)
		}
	}
	last := uint64(1)
	for i := range count {
		id := binary.LittleEndian.Uint64(page[head+8*i:])
		if id <= last || id >= pages {
			return fmt.Errorf("its list of free pages names page %d of %d", id, pages)
		}
		last = id
	}
	tree := pageTree{content: content, size: size, pages: pages, seen: map[uint64]bool{}}
	return tree.walk(root)
}

// pageHead is the size of a page's head.
const pageHead = 16

// pageTree is the tree of pages of a bbolt file.
type pageTree struct {
	content     []byte
	size, pages uint64
	seen        map[uint64]bool
}

// walk refuses a tree in which a page is below itself: bbolt follows it without end, and takes
// memory for each step.
//
// Behind the head of a page come elements of 16 bytes. Those of a branch end in a page's number;
// those of a leaf are flags, the distance to the key, and the lengths of key and value. The value
// of a bucket begins with the number of its first page, or with zero and holds one page itself.
func (t *pageTree) walk(id uint64) error {
	const branch, leaf, bucket, element = 1, 2, 1, 16
	if id < 2 || id >= t.pages || t.seen[id] {
		return fmt.Errorf("page %d is in it twice or nowhere", id)
	}
	t.seen[id] = true
	page := t.content[id*t.size:]
	if more := uint64(binary.LittleEndian.Uint32(page[12:])); id+more < t.pages {
		page = page[:(1+more)*t.size]
	}
	kind, count := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
	if pageHead+count*element > len(page) || kind != branch && kind != leaf || kind == branch && count == 0 {
		return fmt.Errorf("page %d is none", id)
	}
	for at := pageHead; at < pageHead+count*element; at += element {
		if kind == branch {
			if err := t.walk(binary.LittleEndian.Uint64(page[at+8:])); err != nil {
				return err
			}
			continue
		}
		if binary.LittleEndian.Uint32(page[at:])&bucket == 0 {
			continue
		}
		value := uint64(at) + uint64(binary.LittleEndian.Uint32(page[at+4:])) + uint64(binary.LittleEndian.Uint32(page[at+8:]))
		if value+16+pageHead > uint64(len(page)) {
			return fmt.Errorf("page %d is none", id)
		}
		if first := binary.LittleEndian.Uint64(page[value:]); first != 0 {
			if err := t.walk(first); err != nil {
				return err
			}
		} else if binary.LittleEndian.Uint16(page[value+16+8:]) != leaf {
			return fmt.Errorf("page %d holds a part that is none", id)
		}
	}
	return nil
}
