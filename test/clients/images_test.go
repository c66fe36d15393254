package clients

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/test/lab"
)

// toolsImage rewrites the image of the lab as tools of the field pack them: names
// begin with a slash, /dev has device nodes, one template is never rendered. The
// root file system comes a second time as half of a split image.
func toolsImage(t *testing.T, source, dir string) (whole, metadata, rootfs string) {
	t.Helper()
	in, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	var out, meta, root bytes.Buffer
	all, half, other := tar.NewWriter(&out), tar.NewWriter(&meta), tar.NewWriter(&root)
	put := func(w *tar.Writer, header tar.Header, content []byte) {
		header.Size, header.Format = int64(len(content)), tar.FormatUnknown
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	archive := tar.NewReader(unpacked)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name := header.Name
		if name == "metadata.yaml" {
			content = append(content, "  etc/never:\n    when: [\"\"]\n    template: gone.tpl\n"...)
		}
		header.Name = "/" + name
		put(all, *header, content)
		if below, found := strings.CutPrefix(name, "rootfs/"); found && below != "" {
			header.Name = "./" + below
			put(other, *header, content)
		} else if !found {
			put(half, *header, content)
		}
	}
	for _, device := range []tar.Header{
		{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Devmajor: 8},
		{Typeflag: tar.TypeBlock, Name: "opt/disk", Mode: 0o660, Devmajor: 7},
	} {
		below := device.Name
		device.Name = "/rootfs/" + below
		put(all, device, nil)
		device.Name = "./" + below
		put(other, device, nil)
	}
	write := func(name string, w *tar.Writer, data *bytes.Buffer) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(w.Close(), os.WriteFile(path, data.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("tools.tar", all, &out), write("half.tar", half, &meta), write("root.tar", other, &root)
}

// TestLXCImagesAndNames drives what the stock client does with images as tools of
// the field make them, and looks at what they are called afterwards.
func TestLXCImagesAndNames(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	m := lab.Start(t, lab.Options{})
	work := t.TempDir()
	whole, metadata, rootfs := toolsImage(t, lab.BusyboxFile(t), work)
	replace := strings.NewReplacer("$WHOLE", whole, "$META", metadata, "$ROOT", rootfs, "$WORK", work)
	for _, s := range []step{
		{run: "lxc image import $WHOLE --alias tools", want: `Image imported`},
		{run: "lxc launch tools c1", want: `Starting c1`},
		{run: "lxc exec c1 -- sh -c 'test -c /dev/null && test ! -e /dev/sda && test -b /opt/disk && test ! -e /etc/never && echo as it should be'", want: `^as it should be`},
		{run: "lxc exec c1 -- head -c 1 /opt/disk", want: `(?i)denied|not permitted`, fails: true},
		{run: "lxc file pull c1/opt/disk -", want: `device`, fails: true},
		{run: "lxc image import $META $ROOT --alias half && lxc init half c2 && lxc start c2", want: ``},
		{run: "lxc exec c2 -- sh -c 'test ! -e /dev/sda && test -b /opt/disk && echo as it should be'", want: `^as it should be`},
		// Exported files are called by their fingerprint, whatever the upload was.
		{run: "mkdir $WORK/out && lxc image export tools $WORK/out/ && ls $WORK/out", want: `(?m)^[0-9a-f]{64}\.tar$`},
		{run: "rm $WORK/out/* && lxc image export half $WORK/out/ && ls $WORK/out", want: `(?m)^[0-9a-f]{64}\.tar\nmeta-[0-9a-f]{64}\.tar$`},
		{run: "lxc stop -f c1 && lxc publish c1 --alias lz --compression lzma && rm $WORK/out/* && lxc image export lz $WORK/out/ && ls $WORK/out", want: `(?m)^[0-9a-f]{64}\.tar\.lzma$`},
		{run: "lxc image delete lz && lxc image import $WORK/out/*.lzma --alias lz && lxc launch lz c3 && lxc exec c3 -- hostname", want: `(?m)^c3$`},
		{run: "lxc publish c1 --alias rs --compression 'gzip --rsyncable'", want: `published`},
		{run: "lxc publish c1 --compression 'xz --files=/etc/passwd'", want: `no option "--files=/etc/passwd"`, fails: true},
		{run: "lxc config set images.compression_algorithm='xz -1' && lxc config get images.compression_algorithm", want: `^xz -1\s*$`},
		{run: "lxc config set images.compression_algorithm=zip", want: `use gzip`, fails: true},
		// What an image is for is what it says, as with LXD; elsewhere its numbers are known.
		{run: `lxc query -X POST -d '{"name":"c4","architecture":"99","source":{"type":"image","alias":"tools"}}' --wait /1.0/instances && lxc query /1.0/instances/c4`, want: `"architecture": "(x86_64|aarch64)"`},
		{run: `lxc query -X POST -d '{"name":"c5","architecture":"99","source":{"type":"none"}}' --wait /1.0/instances`, want: `architecture`, fails: true},
		{run: "lxc info | grep network_hwaddr", want: `network_hwaddr`},
		// A secret ends with its image.
		{run: `FP=$(lxc image list rs --format csv -c F) && lxc query -X POST "/1.0/images/$FP/secret" && lxc operation list --format csv`, want: `Image download token,RUNNING`},
		{run: "lxc image delete rs && lxc operation list --format csv | grep -v token,CANCELLED", want: `Deleting image,SUCCESS`},
		{run: "! lxc operation list --format csv | grep token,RUNNING", want: `^$`},
		{run: "muster launch debian/12 c9", want: `muster image build debian --suite bookworm --alias debian/12`, fails: true},
		{run: "muster launch nothing c9", want: `muster image import FILE`, fails: true},
	} {
		s.run = replace.Replace(s.run)
		s.check(t, m)
	}
}
