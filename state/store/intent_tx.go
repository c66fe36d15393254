package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"muster/state"
	"muster/state/store/sqlgen"
)

func intentNoun(r sqlgen.Intent) (*state.Intent, error) {
	return &state.Intent{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		ID:   r.ID, Member: r.Member, Kind: r.Kind, Project: r.Project, Subject: r.Subject, Name: r.Name,
		Input: r.Input, CreatedAt: r.CreatedAt.UTC(),
	}, nil
}

// subject is what an intent is about.
type subject struct{ kind, project, name string }

// String names it in errors.
func (s subject) String() string { return s.kind + ` "` + s.name + `"` }

// open records an intent for the subject; image is the fingerprint of an image that
// must stay until it ends, or empty.
func (t *tx) open(ctx context.Context, s subject, intent state.Intent, image string) error {
	intent.Subject, intent.Project, intent.Name = s.kind, s.project, s.name
	intent.CreatedAt = t.created(intent.CreatedAt)
	switch "" {
	case intent.ID:
		return state.Errorf(state.ErrInvalid, "an intent for %s needs an ID", s)
	case intent.Kind:
		return state.Errorf(state.ErrInvalid, "an intent for %s needs a kind", s)
	case intent.Member:
		return state.Errorf(state.ErrInvalid, "an intent for %s needs the member that carries it out", s)
	}
	err := t.q.InsertIntent(ctx, sqlgen.InsertIntentParams{
		ID: intent.ID, Member: intent.Member, Kind: intent.Kind, Project: intent.Project, Subject: intent.Subject, Name: intent.Name,
		Image: image, Input: intent.Input, CreatedAt: intent.CreatedAt, Revision: t.rev(),
	})
	switch {
	case isCode(err, codeUnique):
		return t.idle(ctx, s)
	case isCode(err, codePrimaryKey):
		return state.Errorf(state.ErrExists, "intent %q already exists", intent.ID)
	case isCode(err, codeForeignKey):
		return state.Errorf(state.ErrNotFound, "cluster member %q not found", intent.Member)
	case err != nil:
		return wrap(err, "record what is under way for %s", s)
	}
	t.record(KindIntent, &intent, silent, "")
	return nil
}

// idle refuses with ErrConflict when something is under way for the subject.
func (t *tx) idle(ctx context.Context, s subject) error {
	row, err := t.q.FindIntent(ctx, sqlgen.FindIntentParams{Subject: s.kind, Project: s.project, Name: s.name})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return wrap(err, "see what is under way for %s", s)
	}
	return busy(s, row.Kind)
}

func busy(s subject, with string) error {
	return state.Errorf(state.ErrConflict, "%s is busy: %s is under way; wait for it", s, with)
}

// settle ends the intent of that ID, which must be the subject's, or when the ID is
// empty makes sure that nothing is under way.
func (t *tx) settle(ctx context.Context, s subject, intentID string) error {
	if intentID == "" {
		return t.idle(ctx, s)
	}
	intent, err := t.intent(ctx, intentID)
	if errors.Is(err, state.ErrNotFound) {
		return state.Errorf(state.ErrConflict, "what was under way for %s has ended (intent %q)", s, intentID)
	}
	if err != nil {
		return err
	}
	if (subject{intent.Subject, intent.Project, intent.Name}) != s {
		return state.Errorf(state.ErrConflict, "intent %q is not about %s", intentID, s)
	}
	return t.closeIntent(ctx, intent)
}

func (t *tx) intent(ctx context.Context, id string) (*state.Intent, error) {
	row, err := t.q.FindIntentByID(ctx, id)
	if err != nil {
		return nil, found(err, "intent %q", id)
	}
	return intentNoun(row)
}

func (t *tx) closeIntent(ctx context.Context, intent *state.Intent) error {
	if err := t.q.DeleteIntent(ctx, intent.ID); err != nil {
		return wrap(err, "end intent %q", intent.ID)
	}
	t.recordDelete(KindIntent, intent, silent, "")
	return nil
}

// The subjects of each noun.

func instanceSubject(project, name string) subject { return subject{SubjectInstance, project, name} }

func snapshotSubject(project, instance, name string) subject {
	return subject{SubjectSnapshot, project, instance + "/" + name}
}

func imageSubject(project, fingerprint string) subject {
	return subject{SubjectImage, project, fingerprint}
}

func networkSubject(project, name string) subject { return subject{SubjectNetwork, project, name} }

func poolSubject(name string) subject { return subject{SubjectPool, "", name} }

func volumeSubject(r VolumeRef) subject {
	return subject{SubjectVolume, r.Project, r.Pool + "/" + string(r.Type) + "/" + r.Name}
}

// nameable refuses a name that would break what is made of names: the paths and
// lists that join them by slashes, and the keys of the View.
func nameable(kind, name string) error {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return state.Errorf(state.ErrInvalid, "%q cannot name a %s: it is empty or has a slash", name, kind)
	}
	return nil
}
