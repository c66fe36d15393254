package rest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster/cluster"
	"muster/state"
)

// FileStore reaches the files of instances; *cluster.Cluster is one.
type FileStore interface {
	// ReadFile opens a file, or describes a directory or symbolic link.
	ReadFile(ctx context.Context, project, instance, path string) (*cluster.File, error)
	WriteFile(ctx context.Context, project, instance, path string, spec cluster.FileSpec) error
	DeleteFile(ctx context.Context, project, instance, path string) error
	// Files is a connection that speaks SFTP.
	Files(ctx context.Context, project, instance string) (io.ReadWriteCloser, error)
}

// files serves the files of instances.
type files struct{ store FileStore }

func (x files) routes() []route {
	query := []parameter{projectParameter, {"path", "string", "Absolute path inside the instance."}}
	return []route{
		{
			pattern: "GET /1.0/instances/{name}/files", access: trusted, on: instanceOwner, tells: onInstance("instance-file-retrieved", filePath), handle: x.get, streams: true,
			announces: []string{"directory_manipulation", "file_symlinks", "file_append", "file_delete"},
			summary:   "Read a file, or list a directory", returns: rawBody{}, query: query,
			description: "X-LXD-uid, -gid, -mode, -type (file, directory, symlink) and -modified describe it. A directory is a JSON list.",
		},
		{
			pattern: "POST /1.0/instances/{name}/files", access: trusted, on: instanceOwner, tells: onInstance("instance-file-pushed", filePath), handle: x.post, streams: true,
			summary: "Write a file, or make a directory or a symbolic link", body: rawBody{}, query: query,
			description: "X-LXD-uid, -gid, -mode, -type (file, directory, symlink) and -write (overwrite, append) say how.",
		},
		{
			pattern: "DELETE /1.0/instances/{name}/files", access: trusted, on: instanceOwner, tells: onInstance("instance-file-deleted", filePath), handle: x.delete,
			summary: "Delete a file or an empty directory", query: query,
		},
		{
			pattern: "GET /1.0/instances/{name}/sftp", access: trusted, on: instanceOwner, handle: x.sftp, streams: true,
			summary: "Speak SFTP", status: http.StatusSwitchingProtocols, query: query[:1],
			description: "Ask for an upgrade to \"sftp\".",
		},
	}
}

func (x files) get(r *http.Request) (any, error) {
	read, err := x.store.ReadFile(r.Context(), projectName(r), r.PathValue("name"), r.URL.Query().Get("path"))
	if err != nil {
		return nil, err
	}
	header := http.Header{
		"X-Lxd-Uid": {strconv.Itoa(read.UID)}, "X-Lxd-Gid": {strconv.Itoa(read.GID)},
		"X-Lxd-Mode": {fmt.Sprintf("%04o", read.Mode)}, "X-Lxd-Type": {read.Type},
		"X-Lxd-Modified": {read.Modified.UTC().String()},
	}
	switch read.Type {
	case "directory":
		return headed{header, synced(orNone(read.Entries))}, nil
	case "symlink":
		return file{content: io.NopCloser(strings.NewReader(read.Target)), header: header, size: int64(len(read.Target))}, nil
	}
	return file{content: read.Content, header: header, size: read.Size, modified: read.Modified}, nil
}

// headed adds headers to another answer.
type headed struct {
	header http.Header
	answer answer
}

func (h headed) write(w http.ResponseWriter, r *http.Request) error {
	maps.Copy(w.Header(), h.header)
	return h.answer.write(w, r)
}

func (x files) post(r *http.Request) (any, error) {
	spec := cluster.FileSpec{Type: r.Header.Get("X-LXD-type"), Content: r.Body}
	var err error
	if spec.UID, err = ownerHeader(r, "X-LXD-uid"); err != nil {
		return nil, err
	}
	if spec.GID, err = ownerHeader(r, "X-LXD-gid"); err != nil {
		return nil, err
	}
	if mode := r.Header.Get("X-LXD-mode"); mode != "" {
		bits, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || bits > 0o7777 {
			return nil, state.Errorf(state.ErrInvalid, "X-LXD-mode %q: want octal permission bits such as 0644", mode)
		}
		value := uint32(bits)
		spec.Mode = &value
	}
	switch write := r.Header.Get("X-LXD-write"); write {
	case "", "overwrite":
	case "append":
		spec.Append = true
	default:
		return nil, state.Errorf(state.ErrInvalid, "X-LXD-write %q: want overwrite or append", write)
	}
	return nil, x.store.WriteFile(r.Context(), projectName(r), r.PathValue("name"), r.URL.Query().Get("path"), spec)
}

func ownerHeader(r *http.Request, name string) (*int, error) {
	value := r.Header.Get(name)
	if value == "" {
		return nil, nil
	}
	id, err := strconv.ParseInt(value, 10, 32)
	if err != nil || id < 0 {
		return nil, state.Errorf(state.ErrInvalid, "%s %q is not a numeric id", name, value)
	}
	number := int(id)
	return &number, nil
}

func (x files) delete(r *http.Request) (any, error) {
	return nil, x.store.DeleteFile(r.Context(), projectName(r), r.PathValue("name"), r.URL.Query().Get("path"))
}

func (x files) sftp(r *http.Request) (any, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "sftp") {
		return nil, state.Errorf(state.ErrInvalid, "ask for an upgrade to \"sftp\" over HTTP/1.1")
	}
	conn, err := x.store.Files(r.Context(), projectName(r), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return tunnel{conn}, nil
}

// tunnel answers 101 and joins the client with a connection.
type tunnel struct{ far io.ReadWriteCloser }

func (t tunnel) write(w http.ResponseWriter, r *http.Request) error {
	defer t.far.Close()
	near, buffered, err := hijacker{w}.Hijack()
	if err != nil {
		return state.Errorf(state.ErrInvalid, "%w", err)
	}
	defer near.Close()
	if err := near.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := io.WriteString(near, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		return err
	}
	stop := context.AfterFunc(r.Context(), func() { _ = near.Close() })
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(t.far, buffered)
		_ = t.far.Close()
	}()
	_, _ = io.Copy(near, t.far)
	_ = near.Close()
	<-ended
	return nil
}
