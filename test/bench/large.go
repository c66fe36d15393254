package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// What a Debian image of debootstrap has, about.
const (
	largeFiles = 8000
	largeBytes = 206 << 20
)

// largeImage writes a unified image as large as a distribution's: a small one with files
// of random content added, which no file system stores more cheaply than that.
func largeImage(small, path string) (err error) {
	in, err := os.Open(small)
	if err != nil {
		return err
	}
	defer in.Close()
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	from, to := tar.NewReader(unpacked), tar.NewWriter(out)
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := to.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil { //nolint:gosec // our own image
			return err
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, largeBytes/largeFiles)
	for i := range largeFiles {
		if i%100 == 0 {
			if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("rootfs/large%d/", i/100), Mode: 0o755}); err != nil {
				return err
			}
		}
		_, _ = random.Read(content) // never fails
		header := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("rootfs/large%d/f%d", i/100, i), Mode: 0o644, Size: int64(len(content))}
		if err := to.WriteHeader(header); err != nil {
			return err
		}
		if _, err := to.Write(content); err != nil {
			return err
		}
	}
	return to.Close()
}
