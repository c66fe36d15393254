package store

import (
	"context"
	"net"

	"github.com/canonical/go-dqlite/client"
)

// informant asks the local node who leads and who takes part, over one connection that
// stays open: each read of the cluster asks, and connecting takes longer than the answer.
type informant struct {
	// free holds the connection, nil when there is none, while nobody asks.
	free chan *informed
}

type informed struct {
	client *client.Client
	conn   net.Conn
}

func newInformant() informant {
	i := informant{free: make(chan *informed, 1)}
	i.free <- nil
	return i
}

// consult asks a question that the node answers at once. Those that take time, and those
// that change something, get a connection of their own from ask.
func (n *node) consult(ctx context.Context, question func(*client.Client) error) error {
	var open *informed
	select {
	case open = <-n.informant.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	defer func() {
		if err != nil && open != nil {
			_ = open.client.Close() // what came of the question is not known
			open = nil
		}
		n.informant.free <- open
	}()
	if open == nil {
		if open, err = n.inform(ctx); err != nil {
			return err
		}
	}
	// An answer is read with the deadline of ctx and without heed to its end, so that
	// ends the connection.
	conn := open.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = question(open.client)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return err
}

func (n *node) inform(ctx context.Context) (*informed, error) {
	open := &informed{}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		var err error
		open.conn, err = n.dialSelf(ctx, address)
		return open.conn, err
	}
	var err error
	open.client, err = client.New(ctx, n.address, client.WithDialFunc(dial), client.WithLogFunc(n.logf))
	if err != nil {
		return nil, err
	}
	return open, nil
}

// close ends the connection; the node answers nobody any more.
func (i *informant) close() {
	if open := <-i.free; open != nil {
		_ = open.client.Close()
	}
	i.free <- nil
}
