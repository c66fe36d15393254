package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"muster/cluster"
	"muster/rpc/rest"
	"muster/state"
)

// joinAnswerTimeout bounds how long whoever asked this server to join waits for the end of
// the join. The join itself goes on.
const joinAnswerTimeout = 3 * time.Minute

// joinReplies are the answers to those who asked this server to join a cluster. They
// outlive the server's life alone: the join ends in its life as a member.
type joinReplies struct {
	mu      sync.Mutex
	waiting []func(rest.JoinEnd) // guarded by mu
	late    *time.Timer          // guarded by mu
}

func (r *joinReplies) add(answer func(rest.JoinEnd)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, answer)
	r.late = time.AfterFunc(joinAnswerTimeout, func() {
		r.end(rest.JoinEnd{Err: state.Errorf(state.ErrUnavailable, "the cluster has admitted this server, which has not come up as its member within %v and goes on trying: the list of members on another one, and the log here, say why", joinAnswerTimeout)})
	})
}

// end answers all that wait.
func (r *joinReplies) end(end rest.JoinEnd) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	if r.late != nil {
		r.late.Stop()
	}
	r.mu.Unlock()
	for _, answer := range waiting {
		answer(end)
	}
}

// wanted reports whether somebody waits.
func (r *joinReplies) wanted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0
}

// anewDelay is how long a server that was asked over HTTP/2 goes on before it begins anew:
// whoever asked hears the answer first.
const anewDelay = 500 * time.Millisecond

// BeginAnew implements rest.Daemon.
func (m *member) BeginAnew(answer func(rest.JoinEnd)) {
	if answer == nil {
		time.AfterFunc(anewDelay, m.end)
		return
	}
	m.replies.add(answer)
	m.end()
}

// endJoin records that this member works as one when it does, and tells whoever asked for
// the join. It returns when that is done, or ctx ends.
func (m *member) endJoin(ctx context.Context) error {
	err := m.cluster.EndJoin(ctx)
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // the daemon ends, and with it the wait
	case errors.Is(err, state.ErrNotFound) && m.book.joining():
		if err := m.askMembership(ctx, answerTimeout); errors.Is(err, errRemoved) {
			m.log.Warn("the cluster took the join back: this server is one of its own again")
			m.left.Store(true)
			m.anew.Store(true)
			m.end()
			return m.forgetJoin()
		}
		return nil
	case err != nil:
		m.log.Error("record that this member has joined", "error", err)
		return nil
	}
	if m.book.joining() {
		if err := dropAlone(m.dir); err != nil {
			m.log.Error("remove what this server was before it joined: it is tried again at the next start", "error", err)
		} else if err := m.book.endJoin(); err != nil {
			return err
		}
	}
	if !m.replies.wanted() {
		return nil
	}
	failed := m.cluster.PartsFailed()
	if failed != nil {
		failed = state.Errorf(state.ErrConflict, "this server has joined as member %q, but not all of it works: %w. Nothing is to be joined again: it tries again by itself, so remove what is in the way, and \"muster cluster list\" shows when all works", m.cluster.Self(), failed)
	}
	op, err := m.ops.Start(ctx, cluster.OperationSpec{
		Description: "Joining cluster", Resources: map[string][]string{"cluster": {"/1.0/cluster"}},
	}, func(context.Context, *cluster.Operation) error { return failed })
	if err == nil {
		op, err = m.ops.Wait(ctx, op.ID, answerTimeout)
	}
	if err != nil && failed != nil {
		err = failed // the join is what was asked for, not its operation
	}
	m.replies.end(rest.JoinEnd{Operation: op, Err: err})
	return nil
}

// forgetJoin has the next life of this server be the one before its join, which the
// cluster took back.
func (m *member) forgetJoin() error {
	m.replies.end(rest.JoinEnd{Err: state.Errorf(state.ErrConflict, "the cluster took the join of this server back before it had come up: join again")})
	return writeWhole(filepath.Join(m.dir, leavingFile), nil)
}
