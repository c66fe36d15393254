package peer

import (
	"context"
	"encoding/json"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerpb "muster/rpc/peer/proto"
	"muster/state"
	"muster/state/store"
)

// Apply implements store.Remote.
func (p *Peers) Apply(ctx context.Context, memberID string, envelope store.Envelope) (store.Result, error) {
	conn, err := p.conn(memberID)
	if err != nil {
		return store.Result{}, err
	}
	answer, err := peerpb.NewStateClient(conn).Apply(ctx, &peerpb.ApplyRequest{
		Id: envelope.ID, Term: envelope.Term, Requestor: requestorToWire(envelope.Requestor), Name: envelope.Name, Command: envelope.Command,
	})
	if err != nil {
		return store.Result{}, fromWire(memberID, err)
	}
	return store.Result{Revision: state.Revision(answer.GetRevision()), NotLeader: answer.GetNotLeader()}, nil
}

// Revision implements store.Remote.
func (p *Peers) Revision(ctx context.Context, memberID, vouched string) (state.Revision, error) {
	conn, err := p.conn(memberID)
	if err != nil {
		return 0, err
	}
	answer, err := peerpb.NewStateClient(conn).Revision(ctx, &peerpb.RevisionRequest{Vouched: vouched})
	return state.Revision(answer.GetRevision()), fromWire(memberID, err)
}

// Leader implements store.Remote.
func (p *Peers) Leader(ctx context.Context, memberID string) (string, error) {
	conn, err := p.conn(memberID)
	if err != nil {
		return "", err
	}
	answer, err := peerpb.NewStateClient(conn).Leader(ctx, &peerpb.LeaderRequest{})
	return answer.GetMemberId(), fromWire(memberID, err)
}

// Watch implements store.Remote.
func (p *Peers) Watch(ctx context.Context, memberID string, since state.Revision, schema int64, send func(store.Batch) error) error {
	conn, err := p.conn(memberID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // else the stream would stay open when send fails
	stream, err := peerpb.NewStateClient(conn).Watch(ctx, &peerpb.WatchRequest{Since: int64(since), Schema: schema})
	if err != nil {
		return fromWire(memberID, err)
	}
	for {
		piece, err := stream.Recv()
		if err != nil {
			return fromWire(memberID, err)
		}
		batch, err := batchFromWire(piece)
		if err != nil {
			return err
		}
		if err := send(batch); err != nil {
			return err
		}
	}
}

// stateServer answers for the state plane.
type stateServer struct {
	peerpb.UnimplementedStateServer

	store Store
}

// Apply implements peerpb.StateServer.
func (s stateServer) Apply(ctx context.Context, r *peerpb.ApplyRequest) (*peerpb.ApplyResponse, error) {
	result, err := s.store.ApplyEnvelope(ctx, store.Envelope{
		ID: r.GetId(), Term: r.GetTerm(), Requestor: requestorFromWire(r.GetRequestor()), Name: r.GetName(), Command: r.GetCommand(),
	})
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.ApplyResponse{Revision: int64(result.Revision), NotLeader: result.NotLeader}, nil
}

// Revision implements peerpb.StateServer.
func (s stateServer) Revision(ctx context.Context, r *peerpb.RevisionRequest) (*peerpb.RevisionResponse, error) {
	revision, err := s.store.LeaderRevision(ctx, r.GetVouched())
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.RevisionResponse{Revision: int64(revision)}, nil
}

// Leader implements peerpb.StateServer.
func (s stateServer) Leader(ctx context.Context, _ *peerpb.LeaderRequest) (*peerpb.LeaderResponse, error) {
	leader, err := s.store.KnownLeader(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	return &peerpb.LeaderResponse{MemberId: leader}, nil
}

// Watch implements peerpb.StateServer.
func (s stateServer) Watch(r *peerpb.WatchRequest, stream grpc.ServerStreamingServer[peerpb.WatchResponse]) error {
	return toWire(s.store.Watch(stream.Context(), state.Revision(r.GetSince()), r.GetSchema(), func(batch store.Batch) error {
		piece, err := batchToWire(batch)
		if err != nil {
			return err
		}
		return stream.Send(piece)
	}))
}

func batchToWire(batch store.Batch) (*peerpb.WatchResponse, error) {
	piece := &peerpb.WatchResponse{Snapshot: batch.Snapshot, Revision: int64(batch.Revision), Schema: batch.Schema, Leader: batch.Leader, Records: make([]*peerpb.Record, len(batch.Records))}
	for i, record := range batch.Records {
		sent := &peerpb.Record{
			Revision: int64(record.Revision), Index: int64(record.Index), Kind: string(record.Kind),
			Before: record.Before, After: record.After, Action: record.Action,
			Requestor: requestorToWire(record.Requestor), At: timestamppb.New(record.At),
		}
		if record.Context != nil {
			var err error
			if sent.Context, err = json.Marshal(record.Context); err != nil {
				return nil, err
			}
		}
		piece.Records[i] = sent
	}
	return piece, nil
}

func batchFromWire(piece *peerpb.WatchResponse) (store.Batch, error) {
	batch := store.Batch{
		Snapshot: piece.GetSnapshot(), Revision: state.Revision(piece.GetRevision()), Schema: piece.GetSchema(), Leader: piece.GetLeader(), Records: make([]store.Record, len(piece.GetRecords())),
	}
	for i, sent := range piece.GetRecords() {
		record := store.Record{
			Revision: state.Revision(sent.GetRevision()), Index: int(sent.GetIndex()), Kind: store.Kind(sent.GetKind()),
			Before: sent.GetBefore(), After: sent.GetAfter(), Action: sent.GetAction(),
			Requestor: requestorFromWire(sent.GetRequestor()), At: sent.GetAt().AsTime(),
		}
		if len(sent.GetContext()) > 0 {
			if err := json.Unmarshal(sent.GetContext(), &record.Context); err != nil {
				return store.Batch{}, err
			}
		}
		batch.Records[i] = record
	}
	return batch, nil
}

func requestorToWire(r *store.Requestor) *peerpb.Requestor {
	if r == nil {
		return nil
	}
	return &peerpb.Requestor{Username: r.Username, Protocol: r.Protocol, Address: r.Address, Member: r.Member}
}

func requestorFromWire(r *peerpb.Requestor) *store.Requestor {
	if r == nil {
		return nil
	}
	return &store.Requestor{Username: r.GetUsername(), Protocol: r.GetProtocol(), Address: r.GetAddress(), Member: r.GetMember()}
}

var _ store.Remote = (*Peers)(nil)
