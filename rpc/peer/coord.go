package peer

import (
	"context"

	"google.golang.org/grpc"

	"muster/cluster/coord"
	peerpb "muster/rpc/peer/proto"
)

// Forward implements coord.Forwarder.
func (p *Peers) Forward(ctx context.Context, coordinator string, data []byte) (uint64, error) {
	conn, err := p.conn(coordinator)
	if err != nil {
		return 0, err
	}
	answer, err := peerpb.NewCoordClient(conn).Propose(ctx, &peerpb.ProposeRequest{Entry: data})
	if err != nil {
		return 0, fromWire(coordinator, err)
	}
	if answer.GetNotApplied() {
		return 0, coord.ErrNotApplied
	}
	return answer.GetIndex(), nil
}

// Ping returns nil when the member answers; otherwise it is ErrUnavailable.
func (p *Peers) Ping(ctx context.Context, memberID string) error {
	conn, err := p.conn(memberID)
	if err != nil {
		return err
	}
	_, err = peerpb.NewCoordClient(conn).Ping(ctx, &peerpb.PingRequest{}, grpc.WaitForReady(true))
	return fromWire(memberID, err)
}

// coordServer answers for the coordination plane.
type coordServer struct {
	peerpb.UnimplementedCoordServer

	coord Coord
}

// Propose implements peerpb.CoordServer.
func (s coordServer) Propose(ctx context.Context, r *peerpb.ProposeRequest) (*peerpb.ProposeResponse, error) {
	index, err := s.coord.ProposeEncoded(ctx, r.GetEntry())
	if coord.NotApplied(err) {
		return &peerpb.ProposeResponse{NotApplied: true}, nil
	}
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.ProposeResponse{Index: index}, nil
}

// Ping implements peerpb.CoordServer.
func (s coordServer) Ping(context.Context, *peerpb.PingRequest) (*peerpb.PingResponse, error) {
	return &peerpb.PingResponse{}, nil
}

var _ coord.Forwarder = (*Peers)(nil)
