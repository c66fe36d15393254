package client

import (
	"context"
	"net/url"
	"strings"

	"muster/rpc/rest/api"
)

// EventsQuery says which events to hear.
type EventsQuery struct {
	// Types are api.EventTypeOperation, …Logging and …Lifecycle; none is all.
	Types []string
	// AllProjects hears every project, not just the client's.
	AllProjects bool
}

// Events calls on with every event, in order, until on returns an error (which
// Events returns), ctx ends (its cause is returned), or the connection breaks
// (*ConnectionError).
func (c *Client) Events(ctx context.Context, q EventsQuery, on func(api.Event) error) error {
	query := url.Values{}
	if len(q.Types) > 0 {
		query.Set("type", strings.Join(q.Types, ","))
	}
	if q.AllProjects {
		query.Set("all-projects", "true")
	}
	conn, err := c.dialWebsocket(ctx, at("events"), query)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	// Closing is the only way to end a read.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for {
		var event api.Event
		if err := conn.ReadJSON(&event); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &ConnectionError{Server: c.name, Err: err}
		}
		if err := on(event); err != nil {
			return err
		}
	}
}
