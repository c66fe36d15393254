package rest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	pathpkg "path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/state"
	"muster/state/store"
)

var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
}

// ServeHTTP finds the route. A trailing slash is forgiven (the API's first
// document writes them); a path that is not in its shortest form is unknown,
// since redirecting a PUT helps nobody.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name := aliasName(r); name != "" {
		r.SetPathValue("name", name)
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if handler := s.aliases[method]; handler != nil {
			handler.ServeHTTP(w, r)
			return
		}
		s.refuseMethod(w, r, slices.DeleteFunc(slices.Clone(methods), func(method string) bool { return s.aliases[method] == nil }))
		return
	}
	if trimmed := strings.TrimRight(r.URL.Path, "/"); trimmed != "" && trimmed != r.URL.Path {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = trimmed, strings.TrimRight(r.URL.RawPath, "/")
	}
	if r.URL.Path == "" || pathpkg.Clean(r.URL.Path) != r.URL.Path {
		_ = writeError(w, http.StatusNotFound, fmt.Sprintf("nothing is at %s", r.URL.Path))
		return
	}
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	s.refuseMethod(w, r, s.allowed(r))
}

// aliasPrefix is the path of image aliases. What follows is the name of one, whatever it is
// made of: net/http can't rank a pattern for it against /1.0/images/{fingerprint}/export,
// and would take dots and slashes of the name for those of a path.
const aliasPrefix = "/1.0/images/aliases/"

// aliasName returns the name of the image alias that a request is about, or "". A slash
// at the end that is not escaped is no part of it.
func aliasName(r *http.Request) string {
	escaped, found := strings.CutPrefix(r.URL.EscapedPath(), aliasPrefix)
	if !found {
		return ""
	}
	name, err := url.PathUnescape(strings.TrimRight(escaped, "/"))
	if err != nil {
		return ""
	}
	return name
}

// refuseMethod answers that a path takes other methods than the request's, or is nothing's.
func (s *Server) refuseMethod(w http.ResponseWriter, r *http.Request, allowed []string) {
	if len(allowed) == 0 {
		_ = writeError(w, http.StatusNotFound, fmt.Sprintf("nothing is at %s", r.URL.Path))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	_ = writeError(w, http.StatusMethodNotAllowed,
		fmt.Sprintf("%s does not take %s, only %s", r.URL.Path, r.Method, strings.Join(allowed, ", ")))
}

// allowed lists the methods that the request's path takes.
func (s *Server) allowed(r *http.Request) []string {
	var allowed []string
	for _, method := range methods {
		try := r.Clone(r.Context())
		try.Method = method
		if _, pattern := s.mux.Handler(try); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	return allowed
}

// serve wraps a route with all that every route needs.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn := connOf(r.Context()); conn != nil {
			defer conn.enter()()
		}
		started := time.Now()
		out := &recorder{ResponseWriter: w}
		r, err := s.freshened(rt, r)
		if err == nil {
			r, err = s.authenticated(rt, r)
		}
		if err == nil {
			err = unlessStale(r, s.answer(rt, out, r)) //nolint:contextcheck // within r
		}
		s.finish(rt, out, r, err, time.Since(started))
	})
}

// authenticated puts the caller into the request's context and checks that it
// may call the route.
func (s *Server) authenticated(rt route, r *http.Request) (*http.Request, error) {
	if !forwarded(r.Context()) {
		// Browsers that hold a client certificate must not be led by a strange
		// page to act with it.
		if err := s.cross.Check(r); err != nil {
			return r, state.Errorf(state.ErrForbidden, "not authorized: %w", err)
		}
		caller, err := s.identify(r)
		if err != nil {
			return r, err
		}
		r = r.WithContext(WithCaller(r.Context(), caller))
	}
	caller := CallerOf(r.Context())
	// Lifecycle events say who asked.
	r = r.WithContext(store.WithRequestor(r.Context(), store.Requestor{
		Username: caller.Name, Protocol: caller.Protocol, Address: caller.Address, Member: s.cfg.Host.Name(),
	}))
	return r, allow(rt, caller, r)
}

// answer runs the route here or on the member that owns what it acts on.
func (s *Server) answer(rt route, w *recorder, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // compared by net/http in the same way
				panic(p)
			}
			s.log.Error("handler panicked", "route", rt.pattern, "panic", p, "stack", string(debug.Stack()))
			err = errors.New("the daemon hit a fault of its own; its log has the details")
		}
	}()
	r, release := s.bounded(rt, w, r)
	defer release()
	if err := s.projectExists(r); err != nil {
		return err
	}
	if !forwarded(r.Context()) {
		owner, err := s.member(rt.on, r)
		if err == nil && rt.on.place != nil {
			var done func()
			owner, done, err = s.placed(rt.on, r)
			defer done()
		}
		if err != nil {
			return err
		}
		if owner != "" {
			if err := s.forward(rt, w, r, owner); err == nil || !rt.on.orHere || w.status != 0 {
				return err
			}
		}
	}
	if err := s.inOrder(r); err != nil {
		return err
	}
	s.sayStale(r, w.Header())
	var value any
	if rt.on.everyone && !forwarded(r.Context()) {
		value, err = s.fromEveryone(rt, r)
	} else {
		value, err = rt.handle(r)
	}
	if err != nil {
		return err
	}
	s.tell(rt, r, value)
	if forwarded(r.Context()) && r.Method != http.MethodGet && s.cfg.State.Position != nil {
		w.Header().Set(RevisionHeader, strconv.FormatUint(s.cfg.State.Position(), 10))
	}
	if a, ok := value.(answer); ok {
		return a.write(w, r)
	}
	return synced(value).write(w, r)
}

// inOrder waits for a member that was started just now: its pools are not mounted yet, its
// networks not made, and what runs on it not found. What only shows something does not wait,
// nor do the members among each other.
func (s *Server) inOrder(r *http.Request) error {
	if s.cfg.InOrder == nil || r.Method == http.MethodGet || strings.HasPrefix(r.URL.Path, "/internal/") {
		return nil
	}
	late := time.NewTimer(s.cfg.RequestTimeout)
	defer late.Stop()
	select {
	case <-s.cfg.InOrder:
		return nil
	case <-r.Context().Done():
	case <-late.C:
	}
	return state.Errorf(state.ErrUnavailable, "this member was started just now and has not come to order yet: try again")
}

// bounded gives the request its deadline and its body a limit, or, when it
// streams, ends it with Serve. The caller must call release.
func (s *Server) bounded(rt route, w http.ResponseWriter, r *http.Request) (bounded *http.Request, release func()) {
	if rt.streams {
		ctx, cancel := context.WithCancel(r.Context())
		stop := func() bool { return true }
		if serving, ok := ctx.Value(servingKey{}).(context.Context); ok {
			stop = context.AfterFunc(serving, cancel) //nolint:contextcheck // Serve's own, which the request's outlives
		}
		return r.WithContext(ctx), func() { stop(); cancel() }
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.RequestTimeout)
	deadline, _ := ctx.Deadline()
	r = r.WithContext(ctx)
	r.Body = &timedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), control: http.NewResponseController(w), deadline: deadline}
	return r, cancel
}

// timedBody is a body that must have arrived by the deadline: a client that stops
// in the middle of it would hold the handler for ever. The deadline stands only
// while the body is read, because afterwards net/http takes one that passes for
// the end of the whole connection.
type timedBody struct {
	io.ReadCloser
	control  *http.ResponseController
	deadline time.Time
	timed    bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.timed {
		b.timed = true
		_ = b.control.SetReadDeadline(b.deadline) // not every transport has one
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// projectExists refuses a request that names a project that is not there.
func (s *Server) projectExists(r *http.Request) error {
	name := r.URL.Query().Get("project")
	if name == "" || name == state.DefaultProject {
		return nil
	}
	_, err := s.cfg.View().Project(name)
	return err
}

// finish answers with the error, if any, and logs the request.
func (s *Server) finish(rt route, w *recorder, r *http.Request, err error, took time.Duration) {
	log := s.log.With("method", r.Method, "url", r.URL.Path, "caller", CallerOf(r.Context()).Name)
	if err == nil {
		log.Debug("request served", "status", w.status, "took", took)
		return
	}
	status, sentence := describe(err)
	if w.status != 0 {
		// Too late to say so: the client sees a broken answer.
		log.Debug("answer broke off", "status", w.status, "took", took, "err", err)
		return
	}
	if status == http.StatusInternalServerError {
		log.Error("request failed", "route", rt.pattern, "err", err)
	}
	log.Debug("request refused", "status", status, "took", took, "err", err)
	_ = writeError(w, status, sentence)
}

// recorder notes the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Hijack implements http.Hijacker: from here on the answer is not ours to write.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach what lies below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
