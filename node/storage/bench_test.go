package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/node/storage"
)

// forest is an image of 206 MB in 8,000 files, about what Debian's is.
func forest(_ context.Context, dir string) error {
	content := make([]byte, 26_000)
	for i := range 200 {
		folder := filepath.Join(dir, "rootfs", "usr", fmt.Sprint(i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		for j := range 40 {
			content[0] = byte(j)
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(j)), content, 0o644); err != nil {
				return err
			}
		}
	}
	// The times of an image's files come with the image.
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	})
}

// BenchmarkDriver measures what node waits for, on an image of 206 MB.
func BenchmarkDriver(b *testing.B) {
	for _, driver := range drivers {
		b.Run(driver, func(b *testing.B) {
			needsRoot(b)
			config := smallConfig(driver)
			if config != nil {
				config["size"] = "8GiB"
			}
			p := createIn(b, scratch(b), driver, config)
			ctx := b.Context()
			noError(b, p.EnsureImage(ctx, fingerprint(1), forest))
			n := 0
			next := func() storage.Volume { n++; return storage.Instance(fmt.Sprintf("c%d", n)) }
			// each measures one step, with others around it that do not count.
			each := func(name string, before, step, after func(v storage.Volume)) {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						b.StopTimer()
						v := next()
						if before != nil {
							before(v)
						}
						b.StartTimer()
						step(v)
						b.StopTimer()
						if after != nil {
							after(v)
						}
						noError(b, p.DeleteVolume(ctx, v))
						b.StartTimer()
					}
				})
			}
			create := func(v storage.Volume) { noError(b, p.CreateFromImage(ctx, v, fingerprint(1))) }
			mount := func(v storage.Volume) {
				_, err := p.MountVolume(ctx, v, ids)
				noError(b, err)
			}
			unmount := func(v storage.Volume) { noError(b, p.UnmountVolume(ctx, v)) }
			// stopped is a volume in which a container wrote a few files.
			stopped := func(v storage.Volume) {
				create(v)
				m, err := p.MountVolume(ctx, v, ids)
				noError(b, err)
				noError(b, asRootOf(1_000_000, func() error {
					for i := range 20 {
						if err := os.WriteFile(filepath.Join(m.RootFS, fmt.Sprintf("new%d", i)), []byte("x"), 0o600); err != nil {
							return err
						}
					}
					return nil
				}))
				unmount(v)
			}
			each("create", nil, create, nil)
			each("mount", create, mount, unmount)
			each("remount", stopped, mount, unmount)
			each("unmount", func(v storage.Volume) { create(v); mount(v) }, unmount, nil)
			each("snapshot of a stopped volume", stopped, func(v storage.Volume) { noError(b, p.Snapshot(ctx, v.At("s"))) }, nil)
			each("copy of a stopped volume", stopped, func(v storage.Volume) {
				noError(b, p.Copy(ctx, storage.Instance("copy"), p, v, nil))
			}, func(storage.Volume) { noError(b, p.DeleteVolume(ctx, storage.Instance("copy"))) })
			each("restore", func(v storage.Volume) { stopped(v); noError(b, p.Snapshot(ctx, v.At("s"))) },
				func(v storage.Volume) { noError(b, p.Restore(ctx, v.At("s"))) }, nil)
			each("usage", stopped, func(v storage.Volume) {
				_, err := p.Usage(ctx, v)
				noError(b, err)
			}, nil)
			each("snapshot of a running volume with 200 MB of its own", func(v storage.Volume) {
				create(v)
				mount(v)
				fill200(b, p, v)
			}, func(v storage.Volume) { noError(b, p.Snapshot(ctx, v.At("s"))) }, unmount)
		})
	}
}

// fill200 writes 200 MB in 200 files as the container would.
func fill200(b *testing.B, p *storage.Pool, v storage.Volume) {
	b.Helper()
	m, err := p.MountVolume(b.Context(), v, ids)
	noError(b, err)
	content := make([]byte, 1_000_000)
	folder := filepath.Join(m.RootFS, "own")
	noError(b, asRootOf(1_000_000, func() error {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
		for i := range 200 {
			content[0] = byte(i)
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), content, 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
	noError(b, p.UnmountVolume(b.Context(), v))
}

// BenchmarkSend measures moving an image's 206 MB in 8,000 files, and 256 MB in
// one, from pool to pool of one machine: the bytes of files per second.
func BenchmarkSend(b *testing.B) {
	for _, from := range drivers {
		for _, to := range drivers {
			b.Run(from+" to "+to, func(b *testing.B) { benchmarkSend(b, from, to) })
		}
	}
}

func benchmarkSend(b *testing.B, from, to string) {
	needsRoot(b)
	large := func(driver string) *storage.Pool {
		config := smallConfig(driver)
		if config != nil {
			config["size"] = "8GiB"
		}
		return createIn(b, scratch(b), driver, config)
	}
	source, target := large(from), large(to)
	ctx := b.Context()
	noError(b, source.EnsureImage(ctx, fingerprint(1), forest))
	many, one := storage.Instance("many"), storage.Custom("one")
	noError(b, source.CreateFromImage(ctx, many, fingerprint(1)))
	noError(b, source.CreateEmpty(ctx, one))
	noError(b, inVolume(b, source, one, func(root string) error {
		data := make([]byte, 256<<20)
		r := rand.NewChaCha8([32]byte{2})
		_, _ = r.Read(data) // never fails
		return os.WriteFile(filepath.Join(root, "file"), data, 0o600)
	}))
	whole := func(name string, vol storage.Volume, base string, bytes int64) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(bytes)
			for b.Loop() {
				p := pair{from: source, to: target, vol: vol, base: base}
				p.send(b)
				b.StopTimer()
				noError(b, target.Abandon(ctx, vol))
				b.StartTimer()
			}
		})
	}
	whole("one large file", one, "", 256<<20)
	whole("many files", many, "", 8000*26_000)
	noError(b, target.EnsureImage(ctx, fingerprint(1), forest))
	whole("many files of an image that is there", many, fingerprint(1), 8000*26_000)
	p := pair{from: source, to: target, vol: many}
	p.send(b)
	b.Run("many files once more", func(b *testing.B) {
		b.SetBytes(8000 * 26_000)
		for b.Loop() {
			p.send(b)
		}
	})
	noError(b, target.Abandon(ctx, many))
}
