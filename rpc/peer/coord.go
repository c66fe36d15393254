package peer

import (
	"context"

	"google.golang.org/grpc"

	"muster/cluster/coord"
	peerpb "muster/rpc/peer/proto"
	"muster/state"
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

// Index implements coord.Forwarder.
func (p *Peers) Index(ctx context.Context, coordinator, vouched string) (uint64, error) {
	conn, err := p.conn(coordinator)
	if err != nil {
		return 0, err
	}
	answer, err := peerpb.NewCoordClient(conn).Index(ctx, &peerpb.IndexRequest{Vouched: vouched})
	return answer.GetIndex(), fromWire(coordinator, err)
}

// CoordinatorOf implements coord.Forwarder.
func (p *Peers) CoordinatorOf(ctx context.Context, memberID string) (string, error) {
	conn, err := p.conn(memberID)
	if err != nil {
		return "", err
	}
	answer, err := peerpb.NewCoordClient(conn).Coordinator(ctx, &peerpb.CoordinatorRequest{})
	return answer.GetMemberId(), fromWire(memberID, err)
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

// Follow implements coord.Follower.
func (p *Peers) Follow(ctx context.Context, memberID string, since uint64, send func(coord.Batch) error) error {
	conn, err := p.conn(memberID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // else the stream would stay open when send fails
	stream, err := peerpb.NewCoordClient(conn).Follow(ctx, &peerpb.FollowRequest{Since: since})
	if err != nil {
		return fromWire(memberID, err)
	}
	for {
		piece, err := stream.Recv()
		if err != nil {
			return fromWire(memberID, err)
		}
		batch := coord.Batch{Leader: piece.GetLeader()}
		if len(piece.GetSnapshot()) > 0 {
			batch.Snapshot = piece.GetSnapshot()
		}
		for _, entry := range piece.GetEntries() {
			batch.Entries = append(batch.Entries, coord.LogEntry{Index: entry.GetIndex(), Data: entry.GetData()})
		}
		if err := send(batch); err != nil {
			return err
		}
	}
}

// parts are the names of parts on the wire.
var parts = map[peerpb.Part]state.Part{
	peerpb.Part_PART_NONE: state.PartNone, peerpb.Part_PART_FRESH: state.PartFresh, peerpb.Part_PART_USED: state.PartUsed,
}

func partToWire(part state.Part) peerpb.Part {
	for wire, known := range parts {
		if known == part {
			return wire
		}
	}
	return peerpb.Part_PART_UNSPECIFIED
}

// Parts returns what the member holds of both logs.
func (p *Peers) Parts(ctx context.Context, memberID string) (state.Parts, error) {
	conn, err := p.conn(memberID)
	if err != nil {
		return state.Parts{}, err
	}
	answer, err := peerpb.NewCoordClient(conn).Parts(ctx, &peerpb.PartsRequest{})
	if err != nil {
		return state.Parts{}, fromWire(memberID, err)
	}
	return state.Parts{
		Coord: parts[answer.GetCoord()], Database: parts[answer.GetDatabase()],
		CoordVoters: answer.GetCoordVoters(), DatabaseVoters: answer.GetDatabaseVoters(),
	}, nil
}

// logs are the names of the logs on the wire.
var logs = map[state.Log]peerpb.Log{state.LogCoord: peerpb.Log_LOG_COORD, state.LogDatabase: peerpb.Log_LOG_DATABASE}

// Left asks the member that leads a log whether another is certainly out of it.
func (p *Peers) Left(ctx context.Context, leader string, log state.Log, memberID string) (bool, error) {
	conn, err := p.conn(leader)
	if err != nil {
		return false, err
	}
	answer, err := peerpb.NewCoordClient(conn).Left(ctx, &peerpb.LeftRequest{Log: logs[log], MemberId: memberID})
	return answer.GetLeft(), fromWire(leader, err)
}

// coordServer answers for the coordination plane.
type coordServer struct {
	peerpb.UnimplementedCoordServer

	coord   Coord
	control Control
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

// Index implements peerpb.CoordServer.
func (s coordServer) Index(ctx context.Context, r *peerpb.IndexRequest) (*peerpb.IndexResponse, error) {
	index, err := s.coord.LeaderIndex(ctx, r.GetVouched())
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.IndexResponse{Index: index}, nil
}

// Coordinator implements peerpb.CoordServer.
func (s coordServer) Coordinator(context.Context, *peerpb.CoordinatorRequest) (*peerpb.CoordinatorResponse, error) {
	return &peerpb.CoordinatorResponse{MemberId: s.coord.KnownCoordinator()}, nil
}

// Ping implements peerpb.CoordServer.
func (s coordServer) Ping(context.Context, *peerpb.PingRequest) (*peerpb.PingResponse, error) {
	return &peerpb.PingResponse{}, nil
}

// Follow implements peerpb.CoordServer.
func (s coordServer) Follow(r *peerpb.FollowRequest, stream grpc.ServerStreamingServer[peerpb.FollowResponse]) error {
	return toWire(s.coord.Relay(stream.Context(), r.GetSince(), func(batch coord.Batch) error {
		piece := &peerpb.FollowResponse{Snapshot: batch.Snapshot, Leader: batch.Leader}
		for _, entry := range batch.Entries {
			piece.Entries = append(piece.Entries, &peerpb.LogEntry{Index: entry.Index, Data: entry.Data})
		}
		return stream.Send(piece)
	}))
}

// Parts implements peerpb.CoordServer.
func (s coordServer) Parts(ctx context.Context, _ *peerpb.PartsRequest) (*peerpb.PartsResponse, error) {
	held, err := s.control.Parts(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.PartsResponse{
		Coord: partToWire(held.Coord), Database: partToWire(held.Database),
		CoordVoters: held.CoordVoters, DatabaseVoters: held.DatabaseVoters,
	}, nil
}

// Left implements peerpb.CoordServer.
func (s coordServer) Left(ctx context.Context, r *peerpb.LeftRequest) (*peerpb.LeftResponse, error) {
	for log, wire := range logs {
		if wire == r.GetLog() {
			left, err := s.control.Left(ctx, log, r.GetMemberId())
			if err != nil {
				return nil, toWire(err)
			}
			return &peerpb.LeftResponse{Left: left}, nil
		}
	}
	return nil, toWire(state.Errorf(state.ErrInvalid, "there is no log %v", r.GetLog()))
}

var (
	_ coord.Follower  = (*Peers)(nil)
	_ coord.Forwarder = (*Peers)(nil)
)
