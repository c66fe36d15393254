package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
	return nil
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
