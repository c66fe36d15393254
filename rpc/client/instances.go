package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"muster/rpc/rest/api"
)

// InstancesQuery narrows a list of instances.
type InstancesQuery struct {
	// AllProjects lists every project, not just the client's.
	AllProjects bool
	// Filter is in the API's filter language; "" is everything.
	Filter string
}

func (q InstancesQuery) values(recursion string) url.Values {
	values := url.Values{"recursion": {recursion}}
	if q.AllProjects {
		values.Set("all-projects", "true")
	}
	if q.Filter != "" {
		values.Set("filter", q.Filter)
	}
	return values
}

// Instances lists instances without their state.
func (c *Client) Instances(ctx context.Context, q InstancesQuery) ([]api.Instance, error) {
	return list[api.Instance](ctx, c, at("instances"), q.values("1"))
}

// InstancesFull lists instances with state and snapshots.
func (c *Client) InstancesFull(ctx context.Context, q InstancesQuery) ([]api.InstanceFull, error) {
	return list[api.InstanceFull](ctx, c, at("instances"), q.values("2"))
}

// InstanceNames lists names only, the cheapest question.
func (c *Client) InstanceNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("instances"))
}

// Instance finds one, with its ETag.
func (c *Client) Instance(ctx context.Context, name string) (api.Instance, string, error) {
	return getTagged[api.Instance](ctx, c, at("instances", name), nil)
}

// InstanceFull finds one with state and snapshots.
func (c *Client) InstanceFull(ctx context.Context, name string) (api.InstanceFull, error) {
	return get[api.InstanceFull](ctx, c, at("instances", name), url.Values{"recursion": {"1"}})
}

// InstanceState is what an instance uses right now.
func (c *Client) InstanceState(ctx context.Context, name string) (api.InstanceState, error) {
	return get[api.InstanceState](ctx, c, at("instances", name, "state"), nil)
}

// CreateInstance makes an instance; it is not started.
func (c *Client) CreateInstance(ctx context.Context, post api.InstancesPost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("instances"), body: post})
}

// PlaceInstance says on which member an instance would be made, and why, and makes
// none. That there is no place is told by the answer, not by the error.
func (c *Client) PlaceInstance(ctx context.Context, post api.InstancesPost) (api.Placement, error) {
	var placement api.Placement
	// The target may be a group, which can't be asked.
	server, _, err := c.WithTarget("").Server(ctx)
	if err != nil {
		return placement, err
	}
	if server.Environment.Server != "muster" {
		// It would take the request for one to create the instance.
		return placement, fmt.Errorf("%s is not muster and explains no placement", c.name)
	}
	envelope, _, err := c.call(ctx, request{method: http.MethodPost, path: at("instances"), query: url.Values{"dry-run": {"1"}}, body: post})
	if err != nil {
		return placement, err
	}
	if err := json.Unmarshal(envelope.Metadata, &placement); err != nil {
		return placement, fmt.Errorf("answer to a dry run: %w", err)
	}
	return placement, nil
}

// UpdateInstance replaces an instance's configuration; etag may be empty.
func (c *Client) UpdateInstance(ctx context.Context, name string, put api.InstancePut, etag string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: at("instances", name), body: put, etag: etag})
}

// RestoreInstance takes an instance back to a snapshot. Stateful also restores
// what was in memory.
func (c *Client) RestoreInstance(ctx context.Context, name, snapshot string, stateful bool) (*Operation, error) {
	put := map[string]any{"restore": snapshot, "stateful": stateful}
	return c.start(ctx, request{method: http.MethodPut, path: at("instances", name), body: put})
}

// PostInstance renames, moves or migrates an instance.
func (c *Client) PostInstance(ctx context.Context, name string, post api.InstancePost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("instances", name), body: post})
}

// SetInstanceState starts, stops, restarts, freezes or thaws an instance.
func (c *Client) SetInstanceState(ctx context.Context, name string, put api.InstanceStatePut) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: at("instances", name, "state"), body: put})
}

// SetAllInstanceStates does the same to every instance of the project.
func (c *Client) SetAllInstanceStates(ctx context.Context, put api.InstanceStatePut) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: at("instances"), body: api.InstancesPut{State: &put}})
}

// DeleteInstance removes a stopped instance and its snapshots.
func (c *Client) DeleteInstance(ctx context.Context, name string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodDelete, path: at("instances", name)})
}

// Change reads an instance, lets change edit what may be replaced, and writes it
// back on the condition that nobody else has written in between; after a lost
// race it starts over, a few times. It waits for the operation.
func (c *Client) Change(ctx context.Context, name string, change func(*api.InstancePut) error) error {
	return untilWon(ctx, func() error {
		instance, etag, err := c.Instance(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&instance.InstancePut); err != nil {
			return err
		}
		op, err := c.UpdateInstance(ctx, name, instance.InstancePut, etag)
		if err != nil {
			return err
		}
		err = op.Wait(ctx, nil)
		if _, failed := errors.AsType[*OperationError](err); failed {
			// An operation that fails tells no code. When the instance is no
			// longer what was read, losing the race is the likely reason.
			if _, now, look := c.Instance(ctx, name); look == nil && now != etag {
				return &Error{Code: http.StatusPreconditionFailed, Message: err.Error()}
			}
		}
		return err
	})
}

// untilWon repeats a read-change-write as long as somebody else was faster
// (412), or is at work on the same thing (409).
func untilWon(ctx context.Context, try func() error) error {
	const tries = 6
	pause := 20 * time.Millisecond
	var err error
	for range tries {
		err = try()
		if code := StatusCode(err); code != http.StatusPreconditionFailed && code != http.StatusConflict {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause *= 2
	}
	return err
}

// Snapshots lists an instance's snapshots.
func (c *Client) Snapshots(ctx context.Context, instance string) ([]api.InstanceSnapshot, error) {
	return list[api.InstanceSnapshot](ctx, c, at("instances", instance, "snapshots"), nil)
}

// Snapshot finds one, with its ETag.
func (c *Client) Snapshot(ctx context.Context, instance, name string) (api.InstanceSnapshot, string, error) {
	return getTagged[api.InstanceSnapshot](ctx, c, at("instances", instance, "snapshots", name), nil)
}

// CreateSnapshot takes one.
func (c *Client) CreateSnapshot(ctx context.Context, instance string, post api.InstanceSnapshotsPost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("instances", instance, "snapshots"), body: post})
}

// UpdateSnapshot replaces what may change of one; etag may be empty.
func (c *Client) UpdateSnapshot(ctx context.Context, instance, name string, put api.InstanceSnapshotPut, etag string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: at("instances", instance, "snapshots", name), body: put, etag: etag})
}

// RenameSnapshot renames one.
func (c *Client) RenameSnapshot(ctx context.Context, instance, name, to string) (*Operation, error) {
	post := api.InstanceSnapshotPost{Name: to}
	return c.start(ctx, request{method: http.MethodPost, path: at("instances", instance, "snapshots", name), body: post})
}

// DeleteSnapshot removes one.
func (c *Client) DeleteSnapshot(ctx context.Context, instance, name string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodDelete, path: at("instances", instance, "snapshots", name)})
}
