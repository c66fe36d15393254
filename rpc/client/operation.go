package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/rpc/rest/api"
)

const (
	// waitStep is how long one /wait request is held; with somebody watching
	// the progress it is watchStep, so that the display moves even when the
	// events do not arrive.
	waitStep  = 30 * time.Second
	watchStep = time.Second
	// waitSlack is added for the answer to travel.
	waitSlack = 10 * time.Second
	// reconnectFor is how long a wait goes on trying to reach a server that
	// does not answer: time enough for a daemon to restart.
	reconnectFor  = 20 * time.Second
	reconnectStep = 250 * time.Millisecond
)

// Operation is work in the background, as it was when last seen.
type Operation struct {
	api.Operation
	client *Client
}

// Operations lists the operations of the project, or of all projects.
func (c *Client) Operations(ctx context.Context, allProjects bool) ([]api.Operation, error) {
	query := url.Values{"recursion": {"1"}}
	if allProjects {
		query.Set("all-projects", "true")
	}
	byStatus, err := get[map[string][]api.Operation](ctx, c, at("operations"), query)
	if err != nil {
		return nil, err
	}
	var all []api.Operation
	for _, some := range byStatus {
		all = append(all, some...)
	}
	return all, nil
}

// Operation finds one.
func (c *Client) Operation(ctx context.Context, id string) (*Operation, error) {
	op, err := get[api.Operation](ctx, c, at("operations", id), nil)
	if err != nil {
		return nil, err
	}
	return &Operation{Operation: op, client: c}, nil
}

// CancelOperation asks for an operation to be given up.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	_, _, err := c.call(ctx, request{method: http.MethodDelete, path: at("operations", id)})
	return err
}

// Cancel asks for the operation to be given up.
func (o *Operation) Cancel(ctx context.Context) error { return o.client.CancelOperation(ctx, o.ID) }

// Wait returns when the operation has ended: nil when it succeeded,
// *OperationError when it did not. The truth is asked for with /wait, over and
// over, so no lost event and no broken connection can leave the caller hanging;
// report, unless nil, is called with news on the way and never concurrently.
// Afterwards o holds the operation's last state.
func (o *Operation) Wait(ctx context.Context, report func(api.Operation)) error {
	if report == nil || o.StatusCode.Final() {
		return o.await(ctx, waitStep, func(api.Operation) {})
	}
	// Both sources of news end in one channel, so report needs no lock.
	news := make(chan api.Operation)
	group, inner := errgroup.WithContext(ctx)
	watching, stop := context.WithCancel(inner)
	tell := func(op api.Operation) {
		select {
		case news <- op:
		case <-watching.Done():
		}
	}
	// await writes to o meanwhile.
	client, id := o.client, o.ID
	group.Go(func() error {
		// Events are only for looks: their loss must not fail the wait.
		_ = client.Events(watching, EventsQuery{Types: []string{api.EventTypeOperation}}, func(event api.Event) error {
			var op api.Operation
			if json.Unmarshal(event.Metadata, &op) == nil && op.ID == id && !op.StatusCode.Final() {
				tell(op)
			}
			return nil
		})
		return nil
	})
	group.Go(func() error {
		for {
			select {
			case op := <-news:
				report(op)
			case <-watching.Done():
				return nil
			}
		}
	})
	err := o.await(ctx, watchStep, tell)
	stop()
	// The goroutines return nil; err is what the caller asked for.
	_ = group.Wait()
	return err
}

// await asks again and again until the operation has ended.
func (o *Operation) await(ctx context.Context, step time.Duration, tell func(api.Operation)) error {
	var silentSince time.Time
	for !o.StatusCode.Final() {
		op, err := o.waitOnce(ctx, step)
		switch {
		case err == nil:
			o.Operation, silentSince = op, time.Time{}
			tell(op)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case IsNotFound(err):
			return fmt.Errorf("the server no longer knows operation %s (%s): it was restarted, or the operation ended long ago; look at what it was to change", o.ID, o.Description)
		case !transient(err):
			return fmt.Errorf("wait for operation %s: %w", o.ID, err)
		case silentSince.IsZero():
			silentSince = time.Now()
		case time.Since(silentSince) > reconnectFor:
			return fmt.Errorf("operation %s (%s) may still be going on: %w", o.ID, o.Description, err)
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(reconnectStep):
			}
		}
	}
	if o.StatusCode != api.Success {
		return &OperationError{ID: o.ID, Status: o.StatusCode, Message: o.Err}
	}
	return nil
}

func (o *Operation) waitOnce(ctx context.Context, step time.Duration) (api.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, step+waitSlack)
	defer cancel()
	query := url.Values{"timeout": {strconv.Itoa(int(step.Seconds()))}}
	return get[api.Operation](ctx, o.client, at("operations", o.ID, "wait"), query)
}

// transient says whether asking again may help.
func transient(err error) bool {
	switch StatusCode(err) {
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	_, broken := errors.AsType[*ConnectionError](err)
	return broken || errors.Is(err, context.DeadlineExceeded)
}

// Progress is how far an operation says it is.
type Progress struct {
	// Text is a line for people, such as "Unpack: 7% (656.04MB/s)".
	Text string
	// Percent is 0 to 100, or -1 when it does not say.
	Percent int
}

// ProgressOf reads an operation's metadata: keys that end in "_progress" hold a
// text, and "progress" may hold a map with "percent" (LXD's habit, seen on the
// wire). False means that it says nothing.
func ProgressOf(op api.Operation) (Progress, bool) {
	p := Progress{Percent: -1}
	found := false
	for key, value := range op.Metadata {
		text, ok := value.(string)
		if ok && len(key) > len("_progress") && key[len(key)-len("_progress"):] == "_progress" {
			// Several stages may be there at once; the alphabet decides, so
			// that the display does not flicker.
			if !found || text > p.Text {
				p.Text = text
			}
			found = true
		}
	}
	if details, ok := op.Metadata["progress"].(map[string]any); ok {
		if percent, err := strconv.Atoi(fmt.Sprint(details["percent"])); err == nil && percent >= 0 && percent <= 100 {
			p.Percent, found = percent, true
		}
	}
	return p, found
}
