package state_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"muster/state"
)

func TestParseCompression(t *testing.T) {
	for text, want := range map[string]string{
		"": "gzip", "gzip": "gzip", "  xz  ": "xz", "none": "none", "lzma": "lzma",
		"gzip --rsyncable": "gzip --rsyncable", "gzip -9": "gzip -9", "xz -1": "xz -1", "xz -0 -e": "xz -0 -e", "xz -T0": "xz -T0",
		"zstd -19 --threads=2": "zstd -19 --threads=2", "gzip -c -k": "gzip", "bzip2 --best": "bzip2 --best",
	} {
		algorithm, options, err := state.ParseCompression(text)
		if got := strings.Join(slices.Concat([]string{algorithm}, options), " "); err != nil || got != want {
			t.Errorf("ParseCompression(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"lz4": "unknown compression algorithm", "GZIP": "unknown compression algorithm", "gzip; rm": "unknown compression algorithm", "gzip -0": "no option",
		"xz --files=/etc/shadow": "no option", "gzip 9": "no option", "none -1": "it has none", "zstd -o /tmp/x": "no option", "xz -T": "no option",
		"xz -T+1": "no option", "gzip -d": "no option", "zstd -D /etc/passwd": "no option", "bzip2 -10": "no option", "zstd -23": "no option", "gzip -": "no option",
	} {
		if _, _, err := state.ParseCompression(text); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseCompression(%q) = %v; want an invalid value and %q", text, err, want)
		}
	}
}
