package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// synthetic writes a unified image of about 200 MB in 9,000 files, the shape of a
// Debian root file system, to a file and says how long it is unpacked.
func synthetic(b *testing.B, c Compression) (name string, unpacked int64) {
	b.Helper()
	name = filepath.Join(b.TempDir(), "image"+c.ending())
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	packed, err := compress(b.Context(), f, c)
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+random.IntN(12))
		for j := range words[i] {
			words[i][j] = byte(random.IntN(256))
		}
	}
	w := tar.NewWriter(packed)
	add := func(header *tar.Header, content []byte) {
		header.Size = int64(len(content))
		unpacked += header.Size
		if err := w.WriteHeader(header); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			b.Fatal(err)
		}
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "metadata.yaml", Mode: 0o644}, []byte(goodMetadata))
	for d := range 900 {
		dir := fmt.Sprintf("rootfs/usr/share/d%d", d)
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
		for i := range 10 {
			size := int(random.ExpFloat64() * 23_000)
			var content bytes.Buffer
			for content.Len() < size {
				content.Write(words[random.IntN(len(words))])
			}
			add(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/f%d", dir, i), Mode: 0o644, Uid: i % 3}, content.Bytes())
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		b.Fatal(err)
	}
	return name, unpacked
}

var benchmarked = []Compression{None, Gzip, Zstd, XZ}

func BenchmarkImport(b *testing.B) {
	for _, c := range benchmarked {
		b.Run(string(c), func(b *testing.B) {
			name, unpacked := synthetic(b, c)
			s := openBenchStore(b)
			b.SetBytes(unpacked)
			for b.Loop() {
				importFile(b, s, name)
			}
		})
	}
}

func BenchmarkUnpack(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: unpacking keeps owners")
	}
	for _, c := range benchmarked {
		b.Run(string(c), func(b *testing.B) {
			name, unpacked := synthetic(b, c)
			s := openBenchStore(b)
			info := importFile(b, s, name)
			b.SetBytes(unpacked)
			// Each round has a place of its own: for some seconds ext4 steps
			// around the inodes of what was just deleted, which costs it more
			// than unpacking.
			dir := b.TempDir()
			for round := 0; b.Loop(); round++ {
				if err := s.Unpack(b.Context(), info.Fingerprint, filepath.Join(dir, strconv.Itoa(round)), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: unpacking keeps owners")
	}
	name, unpacked := synthetic(b, Zstd)
	s := openBenchStore(b)
	info := importFile(b, s, name)
	out := filepath.Join(b.TempDir(), "out")
	if err := s.Unpack(b.Context(), info.Fingerprint, out, nil); err != nil {
		b.Fatal(err)
	}
	for _, c := range []Compression{None, Gzip, Zstd} {
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(unpacked)
			for b.Loop() {
				_, err := s.Publish(b.Context(), PublishSpec{
					RootFS: filepath.Join(out, "rootfs"), Metadata: Metadata{Architecture: "x86_64"}, Compression: c,
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCopy is what the disk can do: the same bytes, written and read over.
func BenchmarkCopy(b *testing.B) {
	name, unpacked := synthetic(b, None)
	b.SetBytes(unpacked)
	for b.Loop() {
		in, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		out, err := os.Create(name + ".copy")
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, chunkSize))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = in.Close(), out.Close()
	}
}

func openBenchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func importFile(b *testing.B, s *Store, name string) Info {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := s.Import(context.WithoutCancel(b.Context()), ImportSpec{Next: Parts(Part{RoleUnified, f})})
	if err != nil {
		b.Fatal(err)
	}
	return info
}
