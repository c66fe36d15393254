package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"

	"muster/rpc/rest/api"
)

// ImagePart is one file of an image on its way in.
type ImagePart struct {
	// Name is the file's name, without directories.
	Name string
	// Content is read once.
	Content io.Reader
	// Size of Content in bytes; it must be right.
	Size int64
}

// ImageUpload is an image to import from files.
type ImageUpload struct {
	// Meta is a unified image, or the metadata of a split one.
	Meta ImagePart
	// Rootfs is the root file system of a split image, or nil.
	Rootfs *ImagePart
	// Public lets strangers download it.
	Public bool
	// Properties are added to those in the metadata.
	Properties map[string]string
	// Profiles are the default ones of instances made from it; nil is the
	// server's choice.
	Profiles []string
	// Report is called with the bytes sent so far, unless nil.
	Report func(sent int64)
}

// Size is the sum of the files, in bytes.
func (u ImageUpload) Size() int64 {
	if u.Rootfs == nil {
		return u.Meta.Size
	}
	return u.Meta.Size + u.Rootfs.Size
}

// UploadImage imports an image; the operation's metadata has its "fingerprint".
func (c *Client) UploadImage(ctx context.Context, u ImageUpload) (*Operation, error) {
	header := http.Header{}
	properties := url.Values{}
	for key, value := range u.Properties {
		properties.Set(key, value)
	}
	if len(properties) > 0 {
		header.Set("X-LXD-properties", properties.Encode())
	}
	profiles := url.Values{"profile": u.Profiles}
	if len(u.Profiles) > 0 {
		header.Set("X-LXD-profiles", profiles.Encode())
	}
	header.Set("X-LXD-public", fmt.Sprint(u.Public))
	header.Set("X-LXD-filename", filepath.Base(u.Meta.Name))

	r := request{method: http.MethodPost, path: at("images"), header: header}
	if u.Rootfs == nil {
		header.Set("Content-Type", "application/octet-stream")
		r.raw, r.length = u.Meta.Content, u.Meta.Size
	} else {
		var err error
		if r.raw, r.length, err = multipartBody(header, u.Meta, *u.Rootfs); err != nil {
			return nil, err
		}
	}
	if u.Report != nil {
		r.raw = &counted{from: r.raw, report: u.Report}
	}
	return c.start(ctx, r)
}

// multipartBody lays the frames of a form around the files, without reading
// them, so that the whole length is known before the first byte is sent.
func multipartBody(header http.Header, meta, rootfs ImagePart) (io.Reader, int64, error) {
	var frame bytes.Buffer
	form := multipart.NewWriter(&frame)
	header.Set("Content-Type", form.FormDataContentType())
	var parts []io.Reader
	total := int64(0)
	cut := func() {
		parts = append(parts, bytes.NewReader(bytes.Clone(frame.Bytes())))
		total += int64(frame.Len())
		frame.Reset()
	}
	for _, each := range []struct {
		field string
		part  ImagePart
	}{{"metadata", meta}, {"rootfs", rootfs}} {
		if _, err := form.CreateFormFile(each.field, filepath.Base(each.part.Name)); err != nil {
			return nil, 0, err
		}
		cut()
		parts = append(parts, io.LimitReader(each.part.Content, each.part.Size))
		total += each.part.Size
	}
	if err := form.Close(); err != nil {
		return nil, 0, err
	}
	cut()
	return io.MultiReader(parts...), total, nil
}

// counted reports how much has been read.
type counted struct {
	from   io.Reader
	report func(int64)
	n      int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.report(c.n)
	}
	return n, err
}

// ExportedFile is one file of an image on its way out.
type ExportedFile struct {
	// Field is "metadata", "rootfs" or, for a unified image, "".
	Field string
	// Name is the server's proposal, without directories; it may be empty.
	Name string
	// Content must be read before the next file comes.
	Content io.Reader
	// Size in bytes, or -1 when unknown.
	Size int64
}

// ExportImage downloads an image: save is called with its one file, or with
// metadata and root file system in turn. The secret is for strangers; it may be
// empty.
func (c *Client) ExportImage(ctx context.Context, fingerprint, secret string, save func(ExportedFile) error) error {
	query := url.Values{}
	if secret != "" {
		query.Set("secret", secret)
	}
	resp, err := c.open(ctx, request{method: http.MethodGet, path: at("images", fingerprint, "export"), query: query})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return save(ExportedFile{
			Name: attachmentName(resp.Header), Content: resp.Body, Size: resp.ContentLength,
		})
	}
	form := multipart.NewReader(resp.Body, params["boundary"])
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &ConnectionError{Server: c.name, Err: err}
		}
		if err := save(ExportedFile{Field: part.FormName(), Name: part.FileName(), Content: part, Size: -1}); err != nil {
			return err
		}
	}
}

// attachmentName keeps only the last part of the proposed name: where to write
// is not the server's to say.
func attachmentName(h http.Header) string {
	_, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
	if err != nil {
		return ""
	}
	name := filepath.Base(params["filename"])
	if name == "." || name == "/" || name == ".." {
		return ""
	}
	return name
}

// Fingerprint reads the "fingerprint" that operations which make an image leave
// in their metadata.
func (o *Operation) Fingerprint() string {
	text, _ := o.Metadata["fingerprint"].(string)
	return text
}

// ImageAliasesOf wraps names for the calls that take api.ImageAlias.
func ImageAliasesOf(names []string) []api.ImageAlias {
	aliases := make([]api.ImageAlias, 0, len(names))
	for _, name := range names {
		aliases = append(aliases, api.ImageAlias{Name: name})
	}
	return aliases
}
