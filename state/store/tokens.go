package store

import (
	"time"

	"muster/state"
)

// AddToken records a token; ErrExists when a token of that purpose and name is
// waiting already and its name is not empty.
type AddToken struct {
	Token state.Token
	Hint  Hint
}

// ConsumeToken uses a token up: of any number of commands for one token exactly
// one succeeds. A token that is unknown, has another secret or has expired at Now
// is refused with ErrForbidden, and an expired one is removed.
type ConsumeToken struct {
	ID         string
	SecretHash string
	Now        time.Time
	// Certificate, when not nil, is put into the trust store by the same command.
	Certificate *state.Certificate
	Hint        Hint
}

// DeleteToken withdraws a token.
type DeleteToken struct {
	ID   string
	Hint Hint
}
