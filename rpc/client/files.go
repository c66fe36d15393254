package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"

	"muster/rpc/rest/api"
)

// The kinds of file that the file API knows.
const (
	FileRegular   = "file"
	FileDirectory = "directory"
	FileSymlink   = "symlink"
)

// File is a file in an instance.
type File struct {
	// Type is FileRegular, FileDirectory or FileSymlink.
	Type string
	// UID and GID are the owner's, as the instance sees them.
	UID, GID int64
	// Mode has the permission bits.
	Mode fs.FileMode
	// Content is a regular file's, to be closed by the caller; nil otherwise.
	Content io.ReadCloser
	// Size of Content in bytes, or -1 when the server does not say.
	Size int64
	// Entries are a directory's names.
	Entries []string
	// Target is where a symlink points.
	Target string
}

// ReadFile opens a file of an instance. The path is absolute.
func (c *Client) ReadFile(ctx context.Context, instance, path string) (*File, error) {
	resp, err := c.open(ctx, request{
		method: http.MethodGet, path: at("instances", instance, "files"), query: url.Values{"path": {path}},
	})
	if err != nil {
		return nil, err
	}
	file, err := fileOf(resp)
	if err != nil || file.Content == nil {
		resp.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func fileOf(resp *http.Response) (*File, error) {
	h := resp.Header
	file := &File{Type: h.Get("X-LXD-type"), Size: resp.ContentLength}
	if file.Type == "" {
		file.Type = FileRegular
	}
	// Old servers leave headers out; root with no bits is what that means.
	file.UID, _ = strconv.ParseInt(h.Get("X-LXD-uid"), 10, 64)
	file.GID, _ = strconv.ParseInt(h.Get("X-LXD-gid"), 10, 64)
	if mode, err := strconv.ParseUint(h.Get("X-LXD-mode"), 8, 32); err == nil {
		file.Mode = fs.FileMode(mode) & fs.ModePerm
	}
	switch file.Type {
	case FileRegular:
		file.Content = resp.Body
	case FileDirectory:
		var envelope api.Response
		if err := json.NewDecoder(resp.Body).Decode(&envelope); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(envelope.Metadata, &file.Entries); err != nil {
			return nil, err
		}
	case FileSymlink:
		// PATH_MAX bounds what a link can say.
		target, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil {
			return nil, err
		}
		file.Target = string(target)
	default:
		return nil, fmt.Errorf("neither file, directory nor symlink, but %q", file.Type)
	}
	return file, nil
}

// FileWrite is what to write into an instance.
type FileWrite struct {
	// Type is FileRegular (also ""), FileDirectory or FileSymlink.
	Type string
	// UID, GID and Mode are set when not nil; otherwise a new file is root's
	// and an old one keeps its own.
	UID, GID *int64
	Mode     *fs.FileMode
	// Content is a regular file's bytes, or a symlink's target.
	Content io.Reader
	// Size of Content in bytes; 0 when unknown.
	Size int64
	// Append adds to the file instead of replacing it.
	Append bool
}

// WriteFile creates or changes a file in an instance. The path is absolute and
// its directory must exist.
func (c *Client) WriteFile(ctx context.Context, instance, path string, w FileWrite) error {
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if w.Type == "" {
		w.Type = FileRegular
	}
	header.Set("X-LXD-type", w.Type)
	if w.UID != nil {
		header.Set("X-LXD-uid", strconv.FormatInt(*w.UID, 10))
	}
	if w.GID != nil {
		header.Set("X-LXD-gid", strconv.FormatInt(*w.GID, 10))
	}
	if w.Mode != nil {
		header.Set("X-LXD-mode", fmt.Sprintf("%04o", w.Mode.Perm()))
	}
	if w.Type == FileRegular {
		write := "overwrite"
		if w.Append {
			write = "append"
		}
		header.Set("X-LXD-write", write)
	}
	content := w.Content
	if content == nil {
		content = http.NoBody
	}
	return c.send(ctx, request{
		method: http.MethodPost, path: at("instances", instance, "files"), query: url.Values{"path": {path}},
		raw: content, length: w.Size, header: header,
	})
}

// DeleteFile removes a file or an empty directory of an instance.
func (c *Client) DeleteFile(ctx context.Context, instance, path string) error {
	return c.send(ctx, request{
		method: http.MethodDelete, path: at("instances", instance, "files"), query: url.Values{"path": {path}},
	})
}
