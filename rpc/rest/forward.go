package rest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httputil"

	"muster/state"
)

// Thing names what a request acts on, as far as finding its owner needs.
type Thing struct {
	// Kind is "instance", "volume", "operation" or "image". An empty Kind is whichever
	// member was asked.
	Kind    string
	Project string
	// Pool and Type are a volume's.
	Pool string
	Type string
	// Name is the name, or an operation's id.
	Name string
}

// Placement says which member answers for what.
type Placement interface {
	// Self is this member's name.
	Self() string
	// Owner is the name of the member that owns the thing. An unknown thing is
	// state.ErrNotFound.
	Owner(ctx context.Context, thing Thing) (member string, err error)
	// Others are the names of the other members that are online.
	Others() []string
	// Host is the name of a member that hosts: this one, unless it is a witness.
	Host() (member string, err error)
	// Member reports whether a member of that name exists.
	Member(name string) bool
}

// Peers reaches the other members.
type Peers interface {
	// Transport carries requests to the named member, where they are answered as
	// coming from caller (Server.ServePeer). It never forwards twice.
	Transport(member string, caller Caller) http.RoundTripper
}

// policy says which member answers a route: the zero value is whichever was
// asked.
type policy struct {
	// thing finds what the request acts on; its owner answers.
	thing func(*http.Request) Thing
	// target says that ?target= may name the member.
	target bool
	// named says that {name} is the member.
	named bool
	// everyone says that each member adds its rows to the list.
	everyone bool
	// host says that only a member that hosts can answer: a witness passes it on.
	host bool
	// orHere says that the member that was asked answers when the other can't be reached.
	orHere bool
	// place finds the member by the request's JSON body, which it gets whole; done is
	// called when the answer is there. A body that can't be read is nobody's: the handler
	// says what is wrong with it.
	place func(r *http.Request, body []byte) (member string, done func(), err error)
}

var (
	// toTarget is answered by the member that ?target= names.
	toTarget = policy{target: true}
	// toHost is answered by the member that ?target= names, and otherwise by one that
	// hosts.
	toHost = policy{target: true, host: true}
	// namedMember is answered by member {name}, or by whoever was asked when that member
	// can't.
	namedMember = policy{named: true, orHere: true}
	// everyMember is a list to which each member adds its rows.
	everyMember = policy{everyone: true}
	// instanceOwner is answered by the host of instance {name}.
	instanceOwner = policy{thing: func(r *http.Request) Thing {
		return Thing{Kind: "instance", Project: projectName(r), Name: r.PathValue("name")}
	}}
	// imageHolder is answered by a member that has the files of image {fingerprint}.
	imageHolder = policy{thing: func(r *http.Request) Thing {
		return Thing{Kind: "image", Project: projectName(r), Name: r.PathValue("fingerprint")}
	}}
	// instanceTeller is answered by the host of instance {name}, which knows how it is, or by
	// whoever was asked when that member can't.
	instanceTeller = policy{orHere: true, thing: instanceOwner.thing}
	// ownerForState is an instance whose owner adds how it is, when the caller asks and it
	// can.
	ownerForState = policy{orHere: true, thing: func(r *http.Request) Thing {
		if r.URL.Query().Get("recursion") == "" {
			return Thing{}
		}
		return instanceOwner.thing(r)
	}}
	// volumeTeller is volumeOwner for what is recorded, which whoever was asked knows too.
	volumeTeller = policy{target: true, orHere: true, thing: volumeOwner.thing}
	// operationTeller is answered by the member that runs operation {id}, which knows how
	// far it is, or by whoever was asked when that member can't.
	operationTeller = policy{orHere: true, thing: operationOwner.thing}
	// operationOwner is answered by the member that runs operation {id}.
	operationOwner = policy{thing: func(r *http.Request) Thing {
		return Thing{Kind: "operation", Name: r.PathValue("id")}
	}}
	// volumeOwner is answered by the member that holds volume {type}/{name} of
	// {pool}; ?target= may say which, where several hold one of that name.
	volumeOwner = policy{target: true, thing: func(r *http.Request) Thing {
		return Thing{
			Kind: "volume", Project: projectName(r),
			Pool: r.PathValue("pool"), Type: r.PathValue("type"), Name: r.PathValue("name"),
		}
	}}
)

// member resolves the policy for a request; "" means this member.
func (s *Server) member(p policy, r *http.Request) (string, error) {
	if name := r.URL.Query().Get("target"); p.target && name != "" {
		switch {
		case s.cfg.Placement == nil || !s.cfg.Placement.Member(name):
			return "", state.Errorf(state.ErrNotFound, "cluster member %q not found", name)
		case name == s.cfg.Placement.Self():
			return "", nil
		}
		return name, nil
	}
	if p.named {
		return s.named(r.PathValue("name"))
	}
	if s.cfg.Placement == nil {
		return "", nil
	}
	if p.host {
		return s.host()
	}
	if p.thing == nil {
		return "", nil
	}
	thing := p.thing(r)
	if thing.Kind == "" {
		return "", nil
	}
	owner, err := s.cfg.Placement.Owner(r.Context(), thing)
	if err != nil || owner == s.cfg.Placement.Self() {
		return "", err
	}
	return owner, nil
}

// host is a member that hosts; "" means this one.
func (s *Server) host() (string, error) {
	name, err := s.cfg.Placement.Host()
	if name == s.cfg.Placement.Self() {
		name = ""
	}
	return name, err
}

// named resolves a policy that goes by the member's name.
func (s *Server) named(name string) (string, error) {
	switch {
	case s.cfg.Placement == nil || name == s.cfg.Placement.Self():
		return "", nil
	case !s.cfg.Placement.Member(name):
		return "", state.Errorf(state.ErrNotFound, "cluster member %q not found", name)
	}
	return name, nil
}

// placed resolves a policy that goes by the request's body, and puts the body back.
func (s *Server) placed(p policy, r *http.Request) (member string, done func(), err error) {
	done = func() {}
	peeked := newPeeker(r.Body)
	if !peeked.json() {
		r.Body = &replaced{peeked, r.Body}
		if p.host && s.cfg.Placement != nil {
			member, err = s.host()
		}
		return member, done, err
	}
	under := r.Body
	r.Body = &replaced{peeked, under}
	read, err := body(r)
	if err != nil {
		return "", done, err
	}
	r.Body = &replaced{bytes.NewReader(read), under}
	member, done, err = p.place(r, read)
	if member == "" && err == nil && p.host && s.cfg.Placement != nil {
		member, err = s.host()
	}
	if s.cfg.Placement == nil || member == s.cfg.Placement.Self() {
		member = ""
	}
	return member, done, err
}

// replaced is a body that was read ahead.
type replaced struct {
	io.Reader
	io.Closer
}

// forward lets another member answer: bodies stream, websockets upgrade, and
// ending the request ends it there.
func (s *Server) forward(rt route, w http.ResponseWriter, r *http.Request, member string) error {
	if s.cfg.Peers == nil {
		return state.Errorf(state.ErrUnavailable, "member %q answers this and cannot be reached from here", member)
	}
	var failed error
	proxy := httputil.ReverseProxy{
		Transport: s.cfg.Peers.Transport(member, CallerOf(r.Context())),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", member
			p.Out.Host = p.In.Host
			s.passOn(rt, p.Out.Header)
		},
		ModifyResponse: func(answer *http.Response) error {
			s.passedBack(r, answer.Header)
			return nil
		},
		FlushInterval: -1, // answers may be streams
		ErrorHandler:  func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	if failed != nil {
		return state.Errorf(state.ErrUnavailable, "member %q: %w", member, failed)
	}
	return nil
}

// ServePeer answers a request that another member received from caller and
// forwarded. It answers from this member and never forwards again, so a stale
// map of owners fails instead of looping.
func (s *Server) ServePeer(w http.ResponseWriter, r *http.Request, caller Caller) {
	ctx := context.WithValue(WithCaller(r.Context(), caller), forwardedKey{}, true)
	s.ServeHTTP(w, r.WithContext(ctx))
}

type forwardedKey struct{}

func forwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }
