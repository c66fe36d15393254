package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"muster/cluster/pki"
	"muster/state"
)

// access says who may use a route.
type access int

const (
	unset access = iota
	// public routes answer anybody; the handler shows untrusted callers less.
	public
	// trusted routes answer clients in the trust store, restricted ones within
	// their projects only.
	trusted
	// admin routes answer the local socket and unrestricted client certificates.
	admin
	// metric routes answer admins and certificates of type metrics.
	metric
)

func (a access) String() string {
	return [...]string{"unset", "public", "trusted", "admin", "metrics"}[a]
}

// Trust says how far a caller is trusted.
type Trust string

// The degrees of trust, from none to full.
const (
	// Untrusted callers came over TLS without a certificate of the trust store.
	Untrusted Trust = "untrusted"
	// MetricsOnly callers hold a certificate of type metrics.
	MetricsOnly Trust = "metrics"
	// Restricted callers are trusted within Caller.Projects.
	Restricted Trust = "restricted"
	// Full is the local socket and unrestricted client certificates.
	Full Trust = "full"
)

// Caller is who makes a request. A member that forwards a request passes it on
// unchanged.
type Caller struct {
	// Trust is never empty.
	Trust Trust
	// Protocol is "unix" or "tls".
	Protocol string
	// Name is the user name of a local caller, or the fingerprint of a trusted
	// client certificate, or empty.
	Name string
	// Address is the caller's network address, or "@" for the local socket.
	Address string
	// Projects limits a restricted caller.
	Projects []string
	// Certificate is the DER form of what a TLS caller presented, trusted or
	// not; nil when it presented none.
	Certificate []byte
}

// Sees reports whether the caller may look into the project.
func (c Caller) Sees(project string) bool {
	switch c.Trust {
	case Full:
		return true
	case Restricted:
		return slices.Contains(c.Projects, project)
	}
	return false
}

type callerKey struct{}

// WithCaller returns ctx carrying the caller, for requests that another member
// has authenticated.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// CallerOf returns who makes the request that ctx belongs to; somebody
// untrusted when nobody said.
func CallerOf(ctx context.Context) Caller {
	if caller, ok := ctx.Value(callerKey{}).(Caller); ok {
		return caller
	}
	return Caller{Trust: Untrusted}
}

// identify finds out who is at the other end of the request's connection.
func (s *Server) identify(r *http.Request) (Caller, error) {
	if conn := connOf(r.Context()); conn != nil && conn.unix != nil {
		return s.local(conn.unix)
	}
	caller := Caller{Trust: Untrusted, Protocol: "tls", Address: r.RemoteAddr}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	caller.Certificate = leaf.Raw
	fingerprint := pki.Fingerprint(leaf)
	entry, err := s.cfg.View().Certificate(fingerprint)
	if errors.Is(err, state.ErrNotFound) {
		return caller, nil
	}
	if err != nil {
		return caller, err
	}
	// The trust store pins certificates, but one that says of itself that it is
	// over is: who issues short-lived certificates means it. A start in the
	// future is forgiven, since that is only a clock.
	if time.Now().After(leaf.NotAfter) {
		s.log.Info("client certificate expired", "fingerprint", fingerprint, "expired", leaf.NotAfter)
		return caller, nil
	}
	caller.Name = fingerprint
	switch {
	case entry.Type == "metrics":
		caller.Trust = MetricsOnly
	case entry.Restricted:
		caller.Trust, caller.Projects = Restricted, entry.Projects
	default:
		caller.Trust = Full
	}
	return caller, nil
}

// allow checks the caller against the route, and a restricted caller against
// the project the request names.
func allow(r route, caller Caller, request *http.Request) error {
	switch {
	case r.access == public || caller.Trust == Full:
		return nil
	case r.access == metric && caller.Trust == MetricsOnly:
		return nil
	case caller.Trust == Untrusted:
		return state.Errorf(state.ErrForbidden, "not authorized: the client certificate is not trusted here")
	case caller.Trust == MetricsOnly:
		return state.Errorf(state.ErrForbidden, "not authorized: this certificate may only read /1.0/metrics")
	case r.access != trusted:
		return state.Errorf(state.ErrForbidden, "not authorized: this certificate is restricted to its projects")
	}
	if project := projectName(request); !allProjects(request) && !caller.Sees(project) {
		return state.Errorf(state.ErrForbidden, "not authorized: this certificate may not use project %q", project)
	}
	return nil
}
