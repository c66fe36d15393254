package coord

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
)

// streams is the transport of the log. A member without others has no wire at
// all.
type streams struct {
	transport raft.Transport
	closer    func() error
}

// rpcTimeout bounds one exchange between control members.
const rpcTimeout = 5 * time.Second

func newStreams(ctx context.Context, id string, layer StreamLayer, log *slog.Logger) *streams {
	if layer == nil {
		_, transport := raft.NewInmemTransport(raft.ServerAddress(id))
		return &streams{transport, transport.Close}
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &wire{
			Listener: layer.Listener(), id: id,
			dial: func(id string, timeout time.Duration) (net.Conn, error) {
				dialing, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				return layer.Dial(dialing, id)
			},
		},
		MaxPool:                 2,
		Timeout:                 rpcTimeout,
		Logger:                  hclogTo(log),
		MsgpackUseNewTimeFormat: true,
	})
	return &streams{transport, transport.Close}
}

func (s *streams) close() error { return s.closer() }

// wire is a raft.StreamLayer whose addresses are member IDs.
type wire struct {
	net.Listener
	id   string
	dial func(id string, timeout time.Duration) (net.Conn, error)
}

// Dial implements raft.StreamLayer.
func (w *wire) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if string(address) == w.id {
		return nil, state.Errorf(state.ErrInvalid, "member %s needs no wire to itself", w.id)
	}
	return w.dial(string(address), timeout)
}

// Addr implements net.Listener: the name others know this member by.
func (w *wire) Addr() net.Addr { return memberAddr(w.id) }

type memberAddr string

// Network implements net.Addr.
func (memberAddr) Network() string { return "member" }

// String implements net.Addr.
func (a memberAddr) String() string { return string(a) }
