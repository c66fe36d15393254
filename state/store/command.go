package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"muster/state"
)

// Command is a change to the state. The commands are the structs of this package
// that say so; each runs whole or not at all.
type Command interface {
	// name is the command's name in an Envelope.
	name() string
	// apply makes the change. It may run again, so it has no effect outside tx.
	apply(ctx context.Context, t *tx) error
}

// Hint is what a command adds to the lifecycle event of its change. The zero
// value asks for the command's usual event.
type Hint struct {
	// Action is the event's action, such as "instance-started". Empty means the
	// command's own; NoEvent means none.
	Action string `json:",omitempty"`
	// Context is shown with the event.
	Context map[string]any `json:",omitempty"`
}

// NoEvent is the Hint.Action of a change that makes no lifecycle event.
const NoEvent = "none"

// Requestor is who asked for a change.
type Requestor = state.Requestor

type requestorKey struct{}

// WithRequestor returns a context whose commands are made in the name of r.
func WithRequestor(ctx context.Context, r Requestor) context.Context {
	return context.WithValue(ctx, requestorKey{}, r)
}

// RequestorOf returns in whose name the commands of ctx are made, or nil.
func RequestorOf(ctx context.Context) *Requestor {
	if r, ok := ctx.Value(requestorKey{}).(Requestor); ok {
		return &r
	}
	return nil
}

// Origin is the frame of a command: what identifies it and what fences it.
type Origin struct {
	// ID identifies the command: a second command with the same ID is not run, but
	// answered with the outcome of the first. Empty means a new one.
	ID string
	// Term is the coordinator's term when the coordinator's control loops speak,
	// and zero for everybody else. A term older than the newest seen is refused
	// with ErrConflict.
	Term uint64
}

// Envelope is a command on its way to the leader.
type Envelope struct {
	ID        string
	Term      uint64     `json:",omitempty"`
	Requestor *Requestor `json:",omitempty"`
	// Name and Command are the command's registered name and its JSON.
	Name    string
	Command json.RawMessage
}

// Result is the outcome of a command that succeeded.
type Result struct {
	// Revision is the revision at which the command's change can be seen.
	Revision state.Revision
	// NotLeader is the answer of ApplyEnvelope on a member that does not lead:
	// nothing was done.
	NotLeader bool `json:",omitempty"`
}

// MaxCommand is how long a command may be, as JSON. What one transaction writes must fit
// into one segment of the database's log, of 8 MiB (libraft); more is an I/O error there.
const MaxCommand = 5 << 20

// seal puts a command into its envelope.
func seal(ctx context.Context, origin Origin, command Command) (Envelope, error) {
	e := Envelope{ID: origin.ID, Term: origin.Term, Requestor: RequestorOf(ctx), Name: command.name()}
	if e.ID == "" {
		// Version 7 grows with time, so that the index of outcomes grows at its end.
		id, err := uuid.NewV7()
		if err != nil {
			return Envelope{}, err
		}
		e.ID = id.String()
	}
	var err error
	if e.Command, err = json.Marshal(command); err != nil {
		return Envelope{}, state.Errorf(state.ErrInvalid, "command %s: %w", e.Name, err)
	}
	if len(e.Command) > MaxCommand {
		return Envelope{}, state.Errorf(state.ErrInvalid, "configuration and devices are %d bytes together, of which the database takes %d at once: put long data into a file or an image", len(e.Command), MaxCommand)
	}
	return e, nil
}

// open returns a copy of the command that shares nothing with the one sealed, so
// that objects made of it are nobody else's.
func (e Envelope) open() (Command, error) {
	decode, ok := commands[e.Name]
	if !ok {
		return nil, state.Errorf(state.ErrInvalid, "unknown command %q: this member may run an older release", e.Name)
	}
	command, err := decode(e.Command)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "command %s: %w", e.Name, err)
	}
	return command, nil
}

// commands holds the decoder of each command by its name.
var commands = registry(
	decoder[bootstrap],
	decoder[SetSettings],
	decoder[AddMember],
	decoder[UpdateMember],
	decoder[SetMemberFacts],
	decoder[ClearMember],
	decoder[StayMember],
	decoder[EndJoin],
	decoder[TakeBackJoin],
	decoder[SetWitness],
	decoder[CreateGroup],
	decoder[UpdateGroup],
	decoder[RenameGroup],
	decoder[DeleteGroup],
	decoder[RenameMember],
	decoder[DeleteMember],
	decoder[LoseMember],
	decoder[AddCertificate],
	decoder[UpdateCertificate],
	decoder[DeleteCertificate],
	decoder[AddToken],
	decoder[ConsumeToken],
	decoder[DeleteToken],
	decoder[CreateProject],
	decoder[UpdateProject],
	decoder[DeleteProject],
	decoder[CreateProfile],
	decoder[UpdateProfile],
	decoder[RenameProfile],
	decoder[DeleteProfile],
	decoder[AddImage],
	decoder[UpdateImage],
	decoder[DeleteImage],
	decoder[SetImageUsed],
	decoder[AddImageMember],
	decoder[RemoveImageMember],
	decoder[CreateAlias],
	decoder[UpdateAlias],
	decoder[RenameAlias],
	decoder[DeleteAlias],
	decoder[DefineNetwork],
	decoder[CreateNetwork],
	decoder[SetNetworkLocal],
	decoder[DropNetworkLocal],
	decoder[UpdateNetwork],
	decoder[RenameNetwork],
	decoder[DeleteNetwork],
	decoder[DefinePool],
	decoder[CreatePool],
	decoder[SetPoolLocal],
	decoder[DropPoolLocal],
	decoder[UpdatePool],
	decoder[DeletePool],
	decoder[CreateVolume],
	decoder[UpdateVolume],
	decoder[RenameVolume],
	decoder[DeleteVolume],
	decoder[CreateInstance],
	decoder[FinishCreate],
	decoder[UpdateInstance],
	decoder[SetInstanceState],
	decoder[MoveInstance],
	decoder[RenameInstance],
	decoder[DeleteInstance],
	decoder[CreateSnapshot],
	decoder[FinishSnapshot],
	decoder[UpdateSnapshot],
	decoder[RenameSnapshot],
	decoder[DeleteSnapshot],
	decoder[Begin],
	decoder[End],
	decoder[Renew],
)

func registry(decoders ...func(json.RawMessage) (Command, error)) map[string]func(json.RawMessage) (Command, error) {
	byName := make(map[string]func(json.RawMessage) (Command, error), len(decoders))
	for _, decode := range decoders {
		empty, err := decode(json.RawMessage("{}"))
		if err != nil || byName[empty.name()] != nil {
			panic(fmt.Sprintf("command %T: not decodable, or its name is taken", empty))
		}
		byName[empty.name()] = decode
	}
	return byName
}

func decoder[C Command](raw json.RawMessage) (Command, error) {
	var command C
	err := json.Unmarshal(raw, &command)
	return command, err
}
