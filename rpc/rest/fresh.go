package rest

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster/state"
)

// Log is one of the two replicated logs that answers are made of, as this member has it.
// The zero value is a log that this member is never behind.
type Log struct {
	// Fresh returns nil once this member shows everything that was acknowledged anywhere
	// before the call. It is state.ErrUnavailable, after a second at most, when nobody can
	// say what that is.
	Fresh func(context.Context) error
	// Position is how far this member is in the log, and Wait returns once it is as far.
	Position func() uint64
	Wait     func(context.Context, uint64) error
	// Stale says for how long this member has not been able to tell how far behind it is.
	Stale func() time.Duration
}

func (l Log) fresh(ctx context.Context) error {
	if l.Fresh == nil {
		return nil
	}
	return l.Fresh(ctx)
}

func (l Log) stale() time.Duration {
	if l.Stale == nil {
		return 0
	}
	return l.Stale()
}

// RevisionHeader and IndexHeader are how far a member that asks another is in the state
// and in the registry of operations: the answer is made by one that is as far. In the
// answer to a change, RevisionHeader is how far the answering member is.
const (
	RevisionHeader = "Muster-Revision"
	IndexHeader    = "Muster-Index"
)

// staleHeader says on an answer how old, in seconds, what it shows may be: nobody could
// say what is the newest (DESIGN.md §2).
const staleHeader = "Muster-Stale"

// takesStale reports whether the request takes what this member has, as old as it is.
func takesStale(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Get("stale") == "1"
}

// catchUp is how long a change waits until this member knows what the member does that
// passed it on; readCatchUp is how long a read does, which then shows what there is.
const (
	catchUp     = 5 * time.Second
	readCatchUp = time.Second
)

type staleKey struct{}

// staleness is why a request is answered by what may be old; nil when it is not.
func staleness(ctx context.Context) error {
	err, _ := ctx.Value(staleKey{}).(error)
	return err
}

// freshened returns the request once this member shows everything that was acknowledged
// anywhere before it came, for its caller's trust as for what it acts on: a thing that is
// not found then does not exist. A request that another member has passed on waits for
// what that one shows, and asks no more. When nobody can say what is the newest, the
// request is answered by what there is, and staleness says so; a change that was passed
// on is then refused.
func (s *Server) freshened(rt route, r *http.Request) (*http.Request, error) {
	var err error
	switch {
	case forwarded(r.Context()):
		if err = s.arrived(r); err != nil && r.Method != http.MethodGet {
			return r, err
		}
	case takesStale(r), strings.HasPrefix(rt.path(), "/internal/"):
		return r, nil
	default:
		err = s.cfg.State.fresh(r.Context())
		if err == nil && rt.registry {
			err = s.cfg.Registry.fresh(r.Context())
		}
	}
	if err != nil {
		r = r.WithContext(context.WithValue(r.Context(), staleKey{}, err))
	}
	return r, nil
}

// arrived returns once this member is as far in both logs as the one that passed the
// request on. One that does not say how far it is takes what there is.
func (s *Server) arrived(r *http.Request) error {
	patience := catchUp
	if r.Method == http.MethodGet {
		patience = readCatchUp
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	for header, log := range map[string]Log{RevisionHeader: s.cfg.State, IndexHeader: s.cfg.Registry} {
		known, err := strconv.ParseUint(r.Header.Get(header), 10, 64)
		if err != nil || log.Wait == nil {
			continue
		}
		if err := log.Wait(ctx, known); err != nil {
			return err
		}
	}
	return nil
}

// passOn has the member that answers the request be as far as this one.
func (s *Server) passOn(rt route, header http.Header) {
	header.Del(RevisionHeader)
	header.Del(IndexHeader)
	if s.cfg.State.Position != nil {
		header.Set(RevisionHeader, strconv.FormatUint(s.cfg.State.Position(), 10))
	}
	if rt.registry && s.cfg.Registry.Position != nil {
		header.Set(IndexHeader, strconv.FormatUint(s.cfg.Registry.Position(), 10))
	}
}

// passedBack returns once this member shows what the one that answered had changed, or
// after a second, since the change was made. It also says what may be old about the
// answer.
func (s *Server) passedBack(r *http.Request, header http.Header) {
	reached, err := strconv.ParseUint(header.Get(RevisionHeader), 10, 64)
	header.Del(RevisionHeader)
	if err == nil && s.cfg.State.Wait != nil {
		ctx, cancel := context.WithTimeout(r.Context(), readCatchUp)
		defer cancel()
		if err := s.cfg.State.Wait(ctx, reached); err != nil {
			s.log.Debug("a change was made and is not here yet", "revision", reached, "err", err)
		}
	}
	if header.Get(staleHeader) == "" {
		s.sayStale(r, header)
	}
}

// sayStale says on the answer to a read that what it shows may be old.
func (s *Server) sayStale(r *http.Request, header http.Header) {
	if r.Method != http.MethodGet {
		return
	}
	var old time.Duration
	switch {
	case staleness(r.Context()) != nil:
		old = max(s.cfg.State.stale(), s.cfg.Registry.stale(), time.Second)
	case takesStale(r):
		old = s.cfg.State.stale()
	}
	if old > 0 {
		header.Set(staleHeader, strconv.Itoa(int(math.Ceil(old.Seconds()))))
	}
}

// unlessStale returns err, unless it says of old state what may no longer hold.
func unlessStale(r *http.Request, err error) error {
	why := staleness(r.Context())
	if why != nil && (errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrStale)) {
		return state.Errorf(state.ErrUnavailable, "%v here, and nobody can say whether that is so elsewhere: %w", err, why)
	}
	return err
}
