package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"muster/rpc/client"
)

// advised is an error that knows what the user could do next.
type advised struct {
	err  error
	next string
}

func (e *advised) Error() string { return e.err.Error() }
func (e *advised) Unwrap() error { return e.err }

// advise adds what to do next; nil stays nil.
func advise(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &advised{err: err, next: fmt.Sprintf(format, args...)}
}

// untrusted reports whether a refusal is for want of a trusted certificate, and not because
// of what was asked for: in muster's words, or in the only ones that LXD has for it.
func untrusted(err error) bool {
	refusal, ok := errors.AsType[*client.Error](err)
	return ok && refusal.Code == http.StatusForbidden &&
		(refusal.Message == "not authorized" || strings.Contains(refusal.Message, "client certificate is not trusted"))
}

// hint returns a line that says what to do about an error, or "".
func hint(err error) string {
	if known, ok := errors.AsType[*advised](err); ok {
		return known.next
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		return fmt.Sprintf("See `%s --help`.", usage.path)
	}
	if errors.Is(err, client.ErrServerCertificate) {
		return "If the server was reinstalled, remove the remote and add it again; if not, somebody is in between."
	}
	conn, ok := errors.AsType[*client.ConnectionError](err)
	if !ok {
		if untrusted(err) {
			return "A server trusts a client that was added with `muster remote add NAME TOKEN`; its owner makes a token with `muster config trust add --name YOU`."
		}
		if message := err.Error(); client.IsNotFound(err) && strings.HasPrefix(message, "cluster member ") {
			return "`muster cluster list` shows the members."
		}
		if message := err.Error(); client.IsNotFound(err) && strings.HasPrefix(message, "cluster group ") {
			return "`muster cluster group list` shows the groups."
		}
		return ""
	}
	socket := len(conn.Server) > 0 && conn.Server[0] == '/'
	switch {
	case socket && errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("Only root and the group of %s may use it: try sudo, or join the group.", conn.Server)
	case socket && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return "The daemon does not seem to run here. Start it with `musterd` as root (or `systemctl start musterd`); MUSTER_DIR says where its directory is."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: the server opens its port once core.https_address is set (`muster config set core.https_address [::]:8443` on it)."
	}
	return ""
}
