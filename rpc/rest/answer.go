package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// An answer knows how to write itself. Handlers return one, or plain metadata,
// which is answered as sync.
type answer interface {
	write(w http.ResponseWriter, r *http.Request) error
}

// envelope is the frame of every JSON answer: all seven keys, always.
type envelope struct {
	kind       string
	status     string
	code       int
	operation  string
	errorCode  int
	error      string
	metadata   [][]byte // pieces of one JSON value
	httpStatus int
}

func (e envelope) write(w http.ResponseWriter) error {
	head := fmt.Appendf(nil, `{"type":%s,"status":%s,"status_code":%d,"operation":%s,"error_code":%d,"error":%s,"metadata":`,
		quoted(e.kind), quoted(e.status), e.code, quoted(e.operation), e.errorCode, quoted(e.error))
	pieces := e.metadata
	if len(pieces) == 0 {
		pieces = [][]byte{[]byte("null")}
	}
	const tail = "}\n"
	length := len(head) + len(tail)
	for _, piece := range pieces {
		length += len(piece)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(e.httpStatus)
	out := newGather(w)
	out.add(head)
	for _, piece := range pieces {
		out.add(piece)
	}
	out.add([]byte(tail))
	return out.flush()
}

func quoted(s string) []byte {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return encoded
}

// gather collects small pieces into few writes.
type gather struct {
	w   io.Writer
	buf []byte
	err error
}

func newGather(w io.Writer) *gather { return &gather{w: w, buf: make([]byte, 0, 32<<10)} }

func (g *gather) add(piece []byte) {
	if len(g.buf)+len(piece) > cap(g.buf) {
		_ = g.flush()
	}
	if len(piece) >= cap(g.buf) {
		if g.err == nil {
			_, g.err = g.w.Write(piece)
		}
		return
	}
	g.buf = append(g.buf, piece...)
}

func (g *gather) flush() error {
	if g.err == nil && len(g.buf) > 0 {
		_, g.err = g.w.Write(g.buf)
	}
	g.buf = g.buf[:0]
	return g.err
}

// encoded is metadata that is JSON already.
type encoded []byte

// array is metadata made of elements that are JSON already, so that a long list
// is a concatenation.
type array [][]byte

// metadata turns what a handler returned into pieces of JSON.
func metadata(value any) ([][]byte, error) {
	switch value := value.(type) {
	case nil:
		return [][]byte{[]byte("{}")}, nil
	case encoded:
		return [][]byte{value}, nil
	case array:
		pieces := make([][]byte, 0, 2*len(value)+1)
		pieces = append(pieces, []byte("["))
		for i, element := range value {
			if i > 0 {
				pieces = append(pieces, []byte(","))
			}
			pieces = append(pieces, element)
		}
		return append(pieces, []byte("]")), nil
	}
	encoded, err := json.Marshal(value)
	return [][]byte{encoded}, err
}

// sync answers 200 with metadata and, when the object has one, its ETag.
type sync200 struct {
	metadata any
	etag     string
}

// sync answers 200 with the given metadata; nil becomes an empty object.
func synced(value any) answer { return sync200{metadata: value} }

// tagged answers 200 with metadata and the ETag of the object it shows.
func tagged(etag string, value any) answer { return sync200{metadata: value, etag: etag} }

func (a sync200) write(w http.ResponseWriter, _ *http.Request) error {
	pieces, err := metadata(a.metadata)
	if err != nil {
		return err
	}
	if a.etag != "" {
		w.Header().Set("ETag", a.etag)
	}
	return envelope{kind: "sync", status: "Success", code: 200, httpStatus: http.StatusOK, metadata: pieces}.write(w)
}

// warningHeader holds what whoever asked should know although it was done; there may be
// several.
const warningHeader = "Muster-Warning"

// warned adds warnings to an answer.
type warned struct {
	answer
	warnings []string
}

func (a warned) write(w http.ResponseWriter, r *http.Request) error {
	for _, warning := range a.warnings {
		w.Header().Add(warningHeader, warning)
	}
	return a.answer.write(w, r)
}

// created201 answers 201.
type created201 struct{ url string }

// created answers 201 with the URL of the new or renamed object in Location.
func created(url string) answer { return created201{url} }

func (a created201) write(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Location", a.url)
	return envelope{
		kind: "sync", status: "Success", code: 200, httpStatus: http.StatusCreated,
		metadata: [][]byte{[]byte("{}")},
	}.write(w)
}

// accepted202 answers 202.
type accepted202 struct {
	id        string
	operation any
}

// accepted answers 202 with the operation in the metadata and its URL in
// Location.
func accepted(id string, operation any) answer { return accepted202{id, operation} }

func (a accepted202) write(w http.ResponseWriter, _ *http.Request) error {
	pieces, err := metadata(a.operation)
	if err != nil {
		return err
	}
	url := "/1.0/operations/" + a.id
	w.Header().Set("Location", url)
	return envelope{
		kind: "async", status: "Operation created", code: 100, operation: url,
		httpStatus: http.StatusAccepted, metadata: pieces,
	}.write(w)
}

// File answers with raw bytes: an image, a log, a file of a container.
type file struct {
	// content is read to its end and closed; *os.File and others that can seek
	// are served with ranges.
	content io.ReadCloser
	// name is offered as the file's name when not empty.
	name string
	// modified may be zero.
	modified time.Time
	// contentType is application/octet-stream when empty.
	contentType string
	// header is added to the answer (X-LXD-uid and the like); may be nil.
	header http.Header
	// size is the length in bytes, or 0 when unknown or content can seek.
	size int64
}

func (a file) write(w http.ResponseWriter, r *http.Request) error {
	defer a.content.Close()
	for key, values := range a.header {
		w.Header()[http.CanonicalHeaderKey(key)] = values
	}
	if a.contentType == "" {
		a.contentType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", a.contentType)
	// Nothing that a container wrote may run as a page of ours in a browser.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.name != "" {
		w.Header().Set("Content-Disposition", fmt.Sprintf("inline;filename=%q", a.name))
	}
	if seeker, ok := a.content.(io.ReadSeeker); ok && seekable(a.content) {
		http.ServeContent(w, r, "", a.modified, seeker)
		return nil
	}
	if !a.modified.IsZero() {
		w.Header().Set("Last-Modified", a.modified.UTC().Format(http.TimeFormat))
	}
	if a.size > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(a.size, 10))
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := io.Copy(w, a.content)
	return err
}

// seekable reports whether content is worth asking for its size by seeking;
// pipes are *os.File too.
func seekable(content io.ReadCloser) bool {
	f, ok := content.(*os.File)
	if !ok {
		return true
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}
