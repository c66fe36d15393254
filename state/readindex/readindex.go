// Package readindex answers, for a replicated log, how far a member must have read so
// that it shows all that was acknowledged before a question: the leader's newest index,
// once a majority of voters has said, after the question, that this leader is the one
// they follow. All that ask at the same time share one question.
//
// It writes to no log and knows none: who votes and who follows whom is asked through
// functions.
package readindex

import (
	"context"
	"errors"
	"slices"
	"sync"

	"muster/state"
)

// Rounds shares one question among all that wait for its answer. The answer to a
// question that is under way may be older than a caller's own call, so that caller gets
// the answer to the next question.
type Rounds[T any] struct {
	ask  func(context.Context) (T, error)
	wake chan struct{}
	gone chan struct{}

	mu   sync.Mutex
	next *round[T] // guarded by mu; nil when nobody waits for another question
}

type round[T any] struct {
	done   chan struct{}
	answer T
	err    error
}

// NewRounds returns Rounds that put the question ask. The deadline of the question is
// ask's to set.
func NewRounds[T any](ask func(context.Context) (T, error)) *Rounds[T] {
	return &Rounds[T]{ask: ask, wake: make(chan struct{}, 1), gone: make(chan struct{})}
}

// Run puts the questions, one after the other, until ctx is done.
func (r *Rounds[T]) Run(ctx context.Context) {
	defer close(r.gone)
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.mu.Unlock()
		now.answer, now.err = r.ask(ctx)
		close(now.done)
	}
}

// ErrNoAnswer is why Join gave up, before any other reason was known.
var ErrNoAnswer = errors.New("no leader has said in time what is the newest")

// Join returns the answer to a question that is put after the call. It ends with ctx,
// and with Run: then the error is of kind ErrUnavailable.
func (r *Rounds[T]) Join(ctx context.Context) (T, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
		r.wake <- struct{}{} // has room: one round is next at most
	}
	mine := r.next
	r.mu.Unlock()
	var none T
	select {
	case <-mine.done:
		return mine.answer, mine.err
	case <-ctx.Done():
		return none, state.Errorf(state.ErrUnavailable, "%w: %w", ErrNoAnswer, ctx.Err())
	case <-r.gone:
		return none, state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
	}
}

// Majority returns nil once more than half of the voters follow the leader self: self
// counts, so does vouched, the voter that says so with its question (or ""), and so do
// those of the others for which follows returns self. It asks the others only when it
// has to, all at once, and waits for no more answers than it needs. It must not be called
// before the question whose answer depends on it came in.
func Majority(ctx context.Context, self string, voters []string, vouched string, follows func(ctx context.Context, voter string) (string, error)) error {
	if !slices.Contains(voters, self) {
		return state.Errorf(state.ErrUnavailable, "member %s has no vote, and so does not lead", self)
	}
	missing := len(voters)/2 + 1 - 1
	var others []string
	for _, voter := range voters {
		switch voter {
		case self:
		case vouched:
			missing--
		default:
			others = append(others, voter)
		}
	}
	if missing <= 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type said struct {
		leader string
		err    error
	}
	answers := make(chan said, len(others))
	for _, voter := range others {
		asking.Go(func() {
			leader, err := follows(ctx, voter)
			answers <- said{leader, err}
		})
	}
	var last error
	for range others {
		answer := <-answers
		if answer.err != nil {
			last = answer.err
		} else if answer.leader == self {
			if missing--; missing == 0 {
				return nil
			}
		}
	}
	if last != nil {
		return state.Errorf(state.ErrUnavailable, "too few members say that %s leads: %w", self, last)
	}
	return state.Errorf(state.ErrUnavailable, "too few members say that %s leads", self)
}
