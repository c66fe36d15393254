package store

import (
	"strings"

	"muster/state"
)

// frees reports whether a command belongs to stopping or deleting something: those are
// carried out also while most voters are short of room. Each takes a little of the room
// that was kept for this, and what it is about gives more back.
func frees(command Command) bool {
	switch c := command.(type) {
	case Begin:
		return c.Intent.Kind == "delete"
	case End, Renew, SetInstanceState, ConsumeToken, ClearMember, LoseMember, bootstrap:
		return true
	}
	name := command.name()
	for _, verb := range []string{"delete-", "remove-", "drop-"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// errScarce refuses what needs room.
var errScarce = state.Errorf(state.ErrConflict, "the disks of too many database members are full: until there is room, only stopping and deleting works")

// admit refuses a command that this member, as the leader, must not take now.
func (s *Store) admit(command Command) error {
	if s.watch.Scarce() && !frees(command) {
		return errScarce
	}
	return nil
}
