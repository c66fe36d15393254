package cluster

import (
	"context"
	"io"
)

// Remote asks other members; rpc/peer is the wire.
type Remote interface {
	// Request sends the member a REST request in this member's name and decodes the
	// answer's metadata into answer, which may be nil. A background operation is waited
	// for, and its error returned.
	Request(ctx context.Context, member, method, path string, body, answer any) error
	// Exchange posts a body and returns the answer's, which is a stream.
	Exchange(ctx context.Context, member, path string, body io.Reader) (io.ReadCloser, error)
	// Open reads from a path of the member's, from offset on. total is the size of the
	// whole.
	Open(ctx context.Context, member, path string, offset int64) (body io.ReadCloser, total int64, err error)
}
