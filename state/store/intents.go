package store

import (
	"context"
	"errors"
	"strings"

	"muster/state"
)

// The subjects of intents. A snapshot's name is "instance/snapshot", a volume's
// "pool/type/name".
const (
	SubjectInstance = "instance"
	SubjectSnapshot = "snapshot"
	SubjectImage    = "image"
	SubjectNetwork  = "network"
	SubjectPool     = "pool"
	SubjectVolume   = "volume"
	// SubjectLeftover is what a member has of an instance that is on another; its name
	// is "instance/member".
	SubjectLeftover = "leftover"
)

// Begin opens an intent and marks its subject busy: ErrConflict saying with what
// when something is under way for it (for an instance also when something is for
// one of its snapshots, and the other way round), ErrNotFound when it does not
// exist. An image need not exist, since it is not recorded before it is complete;
// its name is then whatever identifies the download. The command that finishes
// the work names the intent and so ends it.
type Begin struct {
	// Intent has ID, Member, Kind, Project, Subject, Name and Input.
	Intent state.Intent
}

// End closes an intent that led to no other change, and frees its subject. An
// intent that is not open is ErrNotFound.
type End struct {
	ID   string
	Hint Hint
}

// Renew gives an open intent another ID, so that no command that knows it by the one it
// had can end it any more. An intent that is not open is ErrNotFound. An image that the
// intent held is free from then on: the creation is not carried on.
type Renew struct {
	ID    string
	NewID string
}

func (Begin) name() string { return "begin" }

func (c Begin) apply(ctx context.Context, t *tx) error {
	s := subject{c.Intent.Subject, c.Intent.Project, c.Intent.Name}
	mark, ok := busyMarks[s.kind]
	if !ok {
		return state.Errorf(state.ErrInvalid, "an intent cannot be about a %q", s.kind)
	}
	if err := t.open(ctx, s, c.Intent, ""); err != nil {
		return err
	}
	return mark(ctx, t, s, c.Intent.Kind, silent)
}

func (End) name() string { return "end" }

func (c End) apply(ctx context.Context, t *tx) error {
	intent, err := t.intent(ctx, c.ID)
	if err != nil {
		return err
	}
	if err := t.closeIntent(ctx, intent); err != nil {
		return err
	}
	s := subject{intent.Subject, intent.Project, intent.Name}
	err = busyMarks[s.kind](ctx, t, s, "", c.Hint)
	if errors.Is(err, state.ErrNotFound) {
		return nil // what it was about was never recorded
	}
	return err
}

func (Renew) name() string { return "renew" }

func (c Renew) apply(ctx context.Context, t *tx) error {
	intent, err := t.intent(ctx, c.ID)
	if err != nil {
		return err
	}
	if err := t.closeIntent(ctx, intent); err != nil {
		return err
	}
	renewed := *intent
	renewed.ID = c.NewID
	return t.open(ctx, subject{intent.Subject, intent.Project, intent.Name}, renewed, "")
}

// busyMarks show in the subject of an intent what is under way for it, nothing when
// kind is empty, and refuse an intent that the subject is in no state for.
var busyMarks = map[string]func(ctx context.Context, t *tx, s subject, kind string, hint Hint) error{
	SubjectInstance: func(ctx context.Context, t *tx, s subject, kind string, hint Hint) error {
		i, err := t.instance(ctx, s.project, s.name)
		if err != nil {
			return err
		}
		if kind != "" {
			if err := t.snapshotsIdle(ctx, i); err != nil {
				return err
			}
		}
		i.Busy = kind
		return t.saveInstanceState(ctx, i, hint, "")
	},
	SubjectSnapshot: func(ctx context.Context, t *tx, s subject, kind string, hint Hint) error {
		instance, name, _ := strings.Cut(s.name, "/")
		snapshot, err := t.snapshot(ctx, s.project, instance, name)
		if err != nil {
			return err
		}
		if kind != "" {
			if err := t.idle(ctx, instanceSubject(s.project, instance)); err != nil {
				return err
			}
		}
		snapshot.Busy = kind
		return t.saveSnapshot(ctx, snapshot, hint, "")
	},
	SubjectImage: func(ctx context.Context, t *tx, s subject, kind string, hint Hint) error {
		if kind != "delete" {
			return nil // it need not be there, and shows nothing
		}
		return t.imageUnheld(ctx, s.project, s.name)
	},
	SubjectNetwork: func(ctx context.Context, t *tx, s subject, kind string, hint Hint) error {
		n, err := t.network(ctx, s.project, s.name)
		if err != nil {
			return err
		}
		if kind == "rename" {
			if err := t.networkUnused(ctx, n); err != nil {
				return err
			}
		}
		n.Busy = kind
		return t.saveNetwork(ctx, n, n.Name, hint, "")
	},
	// A volume shows nothing; whoever works with it asks for its intent.
	SubjectVolume:   func(context.Context, *tx, subject, string, Hint) error { return nil },
	SubjectLeftover: func(context.Context, *tx, subject, string, Hint) error { return nil },
}
