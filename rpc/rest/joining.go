package rest

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"muster/cluster"
)

// JoinEnd says how the join of a server ended: by an operation that has ended, or, when
// there is none, by an error.
type JoinEnd struct {
	Operation cluster.OperationInfo
	Err       error
}

// joining answers the request that makes this server join a cluster. The answer comes when
// the join has ended, from the server's life as a member: the connection is taken out of
// this one. HTTP/2 knows no connection for one request, so it is answered at once.
type joining struct {
	daemon Daemon
	// atOnce makes the answer over HTTP/2.
	atOnce func() (any, error)
}

func (a joining) write(w http.ResponseWriter, r *http.Request) error {
	conn, err := detach(w, r)
	if err == nil {
		a.daemon.BeginAnew(func(end JoinEnd) {
			defer conn.Close()
			// Nobody may be there any more: the join has ended all the same.
			_ = writeEnd(conn, r, end)
		})
		return nil
	}
	a.daemon.BeginAnew(nil)
	value, err := a.atOnce()
	if err != nil {
		return err
	}
	if done, ok := value.(answer); ok {
		return done.write(w, r)
	}
	return synced(value).write(w, r)
}

// detach takes a request's connection from the server, which then neither closes it nor
// waits for it.
func detach(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	conn, _, err := hijacker{w}.Hijack()
	if err != nil {
		return nil, err
	}
	if known := connOf(r.Context()); known != nil {
		known.of.forget(known)
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if wire, ok := secure.NetConn().(interface{ Detach() }); ok {
			wire.Detach()
		}
	}
	return conn, nil
}

// forget leaves a connection to whoever took it.
func (cs *connections) forget(gone *connection) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c, conn := range cs.open {
		if conn == gone {
			delete(cs.open, c)
		}
	}
}

// endTimeout bounds the writing of an answer to a connection that was taken out.
const endTimeout = 5 * time.Second

// writeEnd answers a request whose connection was taken out.
func writeEnd(conn net.Conn, r *http.Request, end JoinEnd) error {
	out := &kept{header: http.Header{}}
	var err error
	if end.Err != nil {
		status, sentence := describe(end.Err)
		err = writeError(out, status, sentence)
	} else {
		err = started(end.Operation).write(out, r)
	}
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(endTimeout)); err != nil {
		return err
	}
	response := http.Response{
		StatusCode: out.status, ProtoMajor: 1, ProtoMinor: 1, Header: out.header, Close: true,
		Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()), Request: r,
	}
	return response.Write(conn)
}

// kept is an answer that is sent later.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header { return k.header }

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(status int) { k.status = status }

// Write implements http.ResponseWriter.
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }
