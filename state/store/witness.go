package store

import (
	"context"
	"errors"
	"slices"

	"muster/state"
)

// WitnessKey is the configuration key of a member that votes and hosts nothing: it has
// no part of pools and networks, no instances and no images.
const WitnessKey = "volatile.witness"

// Witness reports whether a member is a witness.
func Witness(m *state.Member) bool { return m.Config[WitnessKey] != "" }

// SetWitness makes a member a witness, or a member like others again. ErrConflict while
// it has instances, or has alone what is needed: an image, or a pool or network that a
// device uses. It removes its parts of pools and networks, or makes them, afterwards.
type SetWitness struct {
	Name    string
	Witness bool
	Hint    Hint
}

func (SetWitness) name() string { return "set-witness" }

func (c SetWitness) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil || Witness(m) == c.Witness {
		return err
	}
	if !c.Witness {
		delete(m.Config, WitnessKey)
		if err := t.saveMember(ctx, m, c.Hint, "cluster-member-updated"); err != nil {
			return err
		}
		return t.joinLocals(ctx, c.Name, func(subject) state.Config { return nil })
	}
	instances, err := loaders[KindInstance](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range instances {
		if i := noun.(*state.Instance); i.Location == c.Name {
			return state.Errorf(state.ErrConflict, "member %q has instances, %q among them, and a witness has none: move or delete them first", c.Name, i.Name)
		}
	}
	images, err := loaders[KindImage](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range images {
		image := noun.(*state.Image)
		if !slices.Contains(image.Members, c.Name) {
			continue
		}
		if len(image.Members) == 1 {
			return state.Errorf(state.ErrConflict, "image %.12s is on member %q only, and a witness keeps none: delete it, or wait until another member has it", image.Fingerprint, c.Name)
		}
		if err := (RemoveImageMember{image.Project, image.Fingerprint, c.Name}).apply(ctx, t); err != nil {
			return err
		}
	}
	m.Config[WitnessKey] = "true"
	if err := t.saveMember(ctx, m, c.Hint, "cluster-member-updated"); err != nil {
		return err
	}
	_, err = t.clearLocals(ctx, c.Name)
	if errors.Is(err, state.ErrConflict) {
		return state.Errorf(state.ErrConflict, "member %q can't be a witness, which votes and has no storage pools and networks: %w, and no other member has it: let one that hosts join first, or remove what uses it and then itself, both while this member is started without --witness", c.Name, err)
	}
	return err
}
