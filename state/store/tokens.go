package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// AddToken records a token; ErrExists when its ID is taken.
type AddToken struct {
	Token state.Token
	Hint  Hint
}

// ConsumeToken uses a token up: of any number of commands for one token exactly
// one succeeds. A token that is unknown, has another secret or has expired at Now
// is refused with ErrForbidden. No token is asked for when ID is empty and Member was
// admitted by the trust password (JoinedByPassword), or when Member was admitted by this
// token before and its join has not ended.
type ConsumeToken struct {
	ID         string
	SecretHash string
	Now        time.Time
	// Maker is the fingerprint of the client certificate that made the token; empty means
	// the local socket. The token is refused when that certificate may no longer make one.
	Maker string `json:",omitempty"`
	// Certificate, when not nil, is put into the trust store by the same command.
	Certificate *state.Certificate
	// Member, when not nil, is recorded as a member that joins by the same command,
	// with Settings as its own, and with a part of every pool and network; Pools and
	// Networks are what is different there, by their names. Schema is what its release can
	// work with: ErrConflict when the database's is not among it.
	Member   *state.Member
	Schema   SchemaRange
	Settings map[string]string
	Pools    map[string]state.Config
	Networks map[string]state.Config
	Hint     Hint
}

// DeleteToken withdraws a token.
type DeleteToken struct {
	ID   string
	Hint Hint
}

func (AddToken) name() string { return "add-token" }

func (c AddToken) apply(ctx context.Context, t *tx) error {
	if err := t.mayGrant(ctx, t.requestor.Fingerprint()); err != nil {
		return err
	}
	k := c.Token
	if err := nameable("token", k.ID); err != nil {
		return err
	}
	k.CreatedAt = t.created(k.CreatedAt)
	err := t.q.InsertToken(ctx, sqlgen.InsertTokenParams{
		ID: k.ID, Purpose: k.Purpose, Name: k.Name, SecretHash: k.SecretHash, Restricted: k.Restricted, Projects: encodeList(k.Projects),
		CreatedAt: k.CreatedAt, ExpiresAt: optional(k.ExpiresAt), Operation: k.Operation, Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "token %q", k.ID)
	}
	t.record(KindToken, &k, c.Hint, "")
	return nil
}

func (ConsumeToken) name() string { return "consume-token" }

func (c ConsumeToken) apply(ctx context.Context, t *tx) error {
	again, err := t.rejoins(ctx, c.Member)
	if err != nil {
		return err
	}
	byPassword := c.ID == "" && c.Member != nil && c.Member.Config[JoiningKey] == JoinedByPassword
	if !again && !byPassword {
		if err := c.use(ctx, t); err != nil {
			return err
		}
	}
	if c.Member != nil {
		if err := c.admit(ctx, t); err != nil {
			return err
		}
	}
	if c.Certificate != nil {
		return t.addCertificate(ctx, *c.Certificate, c.Hint)
	}
	return nil
}

// use checks the token and deletes it.
func (c ConsumeToken) use(ctx context.Context, t *tx) error {
	token, err := t.token(ctx, c.ID)
	if errors.Is(err, state.ErrNotFound) || err == nil && subtle.ConstantTimeCompare([]byte(token.SecretHash), []byte(c.SecretHash)) == 0 {
		return state.Errorf(state.ErrForbidden, "the token is unknown or was used already: ask for a new one")
	}
	if err != nil {
		return err
	}
	if !token.ExpiresAt.IsZero() && c.Now.After(token.ExpiresAt) {
		return state.Errorf(state.ErrForbidden, "the token expired at %s: ask for a new one", token.ExpiresAt.Format(time.RFC3339))
	}
	switch err := t.mayGrant(ctx, c.Maker); {
	case errors.Is(err, state.ErrForbidden):
		return state.Errorf(state.ErrForbidden, "the client that made this token is not trusted any more: ask for a new one")
	case err != nil:
		return err
	}
	return t.deleteToken(ctx, token, silent)
}

// admit records the member, its settings and its parts.
func (c ConsumeToken) admit(ctx context.Context, t *tx) error {
	if err := c.Schema.Check(t.schema); err != nil {
		return err
	}
	if err := t.addMember(ctx, *c.Member, c.Hint); err != nil {
		return err
	}
	if err := (SetSettings{Member: c.Member.Name, Local: c.Settings, Hint: silent}).apply(ctx, t); err != nil {
		return err
	}
	if Witness(c.Member) {
		return nil
	}
	return t.joinLocals(ctx, c.Member.Name, func(s subject) state.Config {
		if s.kind == SubjectNetwork {
			return c.Networks[s.name]
		}
		return c.Pools[s.name]
	})
}

func (DeleteToken) name() string { return "delete-token" }

func (c DeleteToken) apply(ctx context.Context, t *tx) error {
	token, err := t.token(ctx, c.ID)
	if err != nil {
		return err
	}
	return t.deleteToken(ctx, token, c.Hint)
}

func (t *tx) deleteToken(ctx context.Context, token *state.Token, hint Hint) error {
	if err := t.q.DeleteToken(ctx, token.ID); err != nil {
		return wrap(err, "delete token %q", token.ID)
	}
	t.recordDelete(KindToken, token, hint, "")
	return nil
}

func (t *tx) token(ctx context.Context, id string) (*state.Token, error) {
	row, err := t.q.FindToken(ctx, id)
	if err != nil {
		return nil, found(err, "token %q", id)
	}
	return tokenNoun(row)
}

func tokenNoun(r sqlgen.Token) (*state.Token, error) {
	projects, err := decodeColumn[[]string](r.Projects)
	return &state.Token{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		ID:   r.ID, Purpose: r.Purpose, Name: r.Name, SecretHash: r.SecretHash, Restricted: r.Restricted, Projects: projects,
		CreatedAt: r.CreatedAt.UTC(), ExpiresAt: moment(r.ExpiresAt), Operation: r.Operation,
	}, err
}
