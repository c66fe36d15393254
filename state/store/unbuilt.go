package store

import (
	"context"
	"net"

	"muster/state"
)

type tx struct{}

var errUnbuilt = state.Errorf(state.ErrUnavailable, "the store cannot do this yet")

// Store is the state plane of one member.
type Store struct{}

// Open opens the store in cfg.Dir.
func Open(ctx context.Context, cfg Config) (*Store, error) { return nil, errUnbuilt }

// Close stops the store and waits for it.
func (s *Store) Close() error { return nil }

// Accept hands a muster/dqlite connection to the node, which owns it from then on.
func (s *Store) Accept(conn net.Conn) {}

// Apply sends a command to the leader and returns when the local View shows it.
func (s *Store) Apply(ctx context.Context, command Command) (Result, error) {
	return Result{}, errUnbuilt
}

// ApplyAs is Apply with an origin of the callers choice.
func (s *Store) ApplyAs(ctx context.Context, origin Origin, command Command) (Result, error) {
	return Result{}, errUnbuilt
}

// ApplyEnvelope runs a command that another member sent to this one as the leader.
func (s *Store) ApplyEnvelope(ctx context.Context, envelope Envelope) (Result, error) {
	return Result{}, errUnbuilt
}

// View returns the newest state that this member knows.
func (s *Store) View() *View { return nil }

// Barrier returns when the local View shows all that was acknowledged anywhere
// before the call.
func (s *Store) Barrier(ctx context.Context) error { return errUnbuilt }

// LeaderRevision answers a Barrier of another member.
func (s *Store) LeaderRevision(ctx context.Context) (state.Revision, error) { return 0, errUnbuilt }

// WaitRevision returns when the local View shows the revision.
func (s *Store) WaitRevision(ctx context.Context, revision state.Revision) error { return errUnbuilt }

// Batch is a piece of the stream that Watch sends: a snapshot, or changes that follow on.
type Batch struct{}

// Watch sends the changes after since, and a snapshot first when they are no longer retained.
func (s *Store) Watch(ctx context.Context, since state.Revision, send func(Batch) error) error {
	return errUnbuilt
}

// Subscribe returns a subscription to the changes after since, in the order of
// their revisions. ErrStale when they are no longer retained: take a View
// and subscribe from its Revision. ErrInvalid when since is in the future.
func (s *Store) Subscribe(since state.Revision) (*Subscription, error) { return nil, errUnbuilt }

// Subscription walks the changes at its own pace; it misses none and holds nobody up.
type Subscription struct{}

// Next waits for changes and returns those of one or more whole revisions. ErrStale
// when the subscription fell out of the retained window or the View was made anew:
// take a View and subscribe from its Revision. ErrUnavailable when the store is closed.
func (s *Subscription) Next(ctx context.Context) ([]Change, error) { return nil, errUnbuilt }

func (s *Store) query(ctx context.Context, statement string, args []any, write bool) (*Table, error) {
	return nil, errUnbuilt
}

func (SetSettings) name() string                                  { return "set-settings" }
func (SetSettings) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (AddMember) name() string                                    { return "add-member" }
func (AddMember) apply(ctx context.Context, tx *tx) error         { return errUnbuilt }
func (UpdateMember) name() string                                 { return "update-member" }
func (UpdateMember) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (RenameMember) name() string                                 { return "rename-member" }
func (RenameMember) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (DeleteMember) name() string                                 { return "delete-member" }
func (DeleteMember) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (AddCertificate) name() string                               { return "add-certificate" }
func (AddCertificate) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (UpdateCertificate) name() string                            { return "update-certificate" }
func (UpdateCertificate) apply(ctx context.Context, tx *tx) error { return errUnbuilt }
func (DeleteCertificate) name() string                            { return "delete-certificate" }
func (DeleteCertificate) apply(ctx context.Context, tx *tx) error { return errUnbuilt }
func (AddToken) name() string                                     { return "add-token" }
func (AddToken) apply(ctx context.Context, tx *tx) error          { return errUnbuilt }
func (ConsumeToken) name() string                                 { return "consume-token" }
func (ConsumeToken) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (DeleteToken) name() string                                  { return "delete-token" }
func (DeleteToken) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (CreateProject) name() string                                { return "create-project" }
func (CreateProject) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (UpdateProject) name() string                                { return "update-project" }
func (UpdateProject) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (DeleteProject) name() string                                { return "delete-project" }
func (DeleteProject) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (CreateProfile) name() string                                { return "create-profile" }
func (CreateProfile) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (UpdateProfile) name() string                                { return "update-profile" }
func (UpdateProfile) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (RenameProfile) name() string                                { return "rename-profile" }
func (RenameProfile) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (DeleteProfile) name() string                                { return "delete-profile" }
func (DeleteProfile) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (AddImage) name() string                                     { return "add-image" }
func (AddImage) apply(ctx context.Context, tx *tx) error          { return errUnbuilt }
func (UpdateImage) name() string                                  { return "update-image" }
func (UpdateImage) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (DeleteImage) name() string                                  { return "delete-image" }
func (DeleteImage) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (SetImageUsed) name() string                                 { return "set-image-used" }
func (SetImageUsed) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (AddImageMember) name() string                               { return "add-image-member" }
func (AddImageMember) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (RemoveImageMember) name() string                            { return "remove-image-member" }
func (RemoveImageMember) apply(ctx context.Context, tx *tx) error { return errUnbuilt }
func (CreateAlias) name() string                                  { return "create-alias" }
func (CreateAlias) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (UpdateAlias) name() string                                  { return "update-alias" }
func (UpdateAlias) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (RenameAlias) name() string                                  { return "rename-alias" }
func (RenameAlias) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (DeleteAlias) name() string                                  { return "delete-alias" }
func (DeleteAlias) apply(ctx context.Context, tx *tx) error       { return errUnbuilt }
func (CreateNetwork) name() string                                { return "create-network" }
func (CreateNetwork) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (UpdateNetwork) name() string                                { return "update-network" }
func (UpdateNetwork) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (RenameNetwork) name() string                                { return "rename-network" }
func (RenameNetwork) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (DeleteNetwork) name() string                                { return "delete-network" }
func (DeleteNetwork) apply(ctx context.Context, tx *tx) error     { return errUnbuilt }
func (CreatePool) name() string                                   { return "create-pool" }
func (CreatePool) apply(ctx context.Context, tx *tx) error        { return errUnbuilt }
func (UpdatePool) name() string                                   { return "update-pool" }
func (UpdatePool) apply(ctx context.Context, tx *tx) error        { return errUnbuilt }
func (DeletePool) name() string                                   { return "delete-pool" }
func (DeletePool) apply(ctx context.Context, tx *tx) error        { return errUnbuilt }
func (CreateVolume) name() string                                 { return "create-volume" }
func (CreateVolume) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (UpdateVolume) name() string                                 { return "update-volume" }
func (UpdateVolume) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (RenameVolume) name() string                                 { return "rename-volume" }
func (RenameVolume) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (DeleteVolume) name() string                                 { return "delete-volume" }
func (DeleteVolume) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (CreateInstance) name() string                               { return "create-instance" }
func (CreateInstance) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (FinishCreate) name() string                                 { return "finish-create" }
func (FinishCreate) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (UpdateInstance) name() string                               { return "update-instance" }
func (UpdateInstance) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (SetInstanceState) name() string                             { return "set-instance-state" }
func (SetInstanceState) apply(ctx context.Context, tx *tx) error  { return errUnbuilt }
func (MoveInstance) name() string                                 { return "move-instance" }
func (MoveInstance) apply(ctx context.Context, tx *tx) error      { return errUnbuilt }
func (RenameInstance) name() string                               { return "rename-instance" }
func (RenameInstance) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (DeleteInstance) name() string                               { return "delete-instance" }
func (DeleteInstance) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (CreateSnapshot) name() string                               { return "create-snapshot" }
func (CreateSnapshot) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (FinishSnapshot) name() string                               { return "finish-snapshot" }
func (FinishSnapshot) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (UpdateSnapshot) name() string                               { return "update-snapshot" }
func (UpdateSnapshot) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (RenameSnapshot) name() string                               { return "rename-snapshot" }
func (RenameSnapshot) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (DeleteSnapshot) name() string                               { return "delete-snapshot" }
func (DeleteSnapshot) apply(ctx context.Context, tx *tx) error    { return errUnbuilt }
func (Begin) name() string                                        { return "begin" }
func (Begin) apply(ctx context.Context, tx *tx) error             { return errUnbuilt }
func (End) name() string                                          { return "end" }
func (End) apply(ctx context.Context, tx *tx) error               { return errUnbuilt }
