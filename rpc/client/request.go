package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster/rpc/rest/api"
)

// request is one call of the API.
type request struct {
	method string
	// path starts with "/1.0"; its parts are escaped already.
	path  string
	query url.Values
	// body is encoded as JSON; raw is sent as it is. At most one is set.
	body any
	raw  io.Reader
	// length of raw in bytes, or 0 when unknown.
	length int64
	header http.Header
	// etag must match, unless empty.
	etag string
	// timeout is RequestTimeout when zero.
	timeout time.Duration
}

// at joins parts to a path below /1.0, escaping each of them.
func at(parts ...string) string {
	var joined strings.Builder
	joined.WriteString("/" + api.Version)
	for _, part := range parts {
		joined.WriteString("/" + url.PathEscape(part))
	}
	return joined.String()
}

// checkPath refuses parts that would name another resource than the one meant:
// an empty name turns "delete this" into "delete the collection".
func checkPath(p string) error {
	for part := range strings.SplitSeq(p[1:], "/") {
		switch part {
		case "":
			return errors.New("a name is empty")
		case ".", "..":
			return fmt.Errorf("%q is not a name", part)
		}
	}
	return nil
}

// open sends the request and returns the answer with its body unread. Refusals
// come back as *Error with the body closed.
func (c *Client) open(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.httpRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	c.log.DebugContext(ctx, "request", "method", r.method, "url", req.URL.String(), "body", r.body)
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL in url.Error repeats what ConnectionError says.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &ConnectionError{Server: c.name, Err: err}
	}
	c.log.DebugContext(ctx, "answer", "status", resp.Status, "type", resp.Header.Get("Content-Type"))
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	for _, warning := range resp.Header.Values("Muster-Warning") {
		c.Warn("%s", warning)
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Muster-Stale")); err == nil && c.stale != nil {
		c.stale(time.Duration(seconds) * time.Second)
	}
	return resp, nil
}

func (c *Client) httpRequest(ctx context.Context, r request) (*http.Request, error) {
	body := r.raw
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	if err := checkPath(r.path); err != nil && r.path != "/" {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.url(r.path, r.query), body)
	if err != nil {
		return nil, err
	}
	if r.header != nil {
		req.Header = r.header
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.raw != nil && r.length > 0 {
		req.ContentLength = r.length
	}
	if r.etag != "" {
		req.Header.Set("If-Match", r.etag)
	}
	req.Header.Set("User-Agent", c.agent)
	return req, nil
}

// url adds the project and the target, unless the call names its own.
func (c *Client) url(p string, query url.Values) string {
	all := url.Values{}
	if c.project != "" {
		all.Set("project", c.project)
	}
	if c.target != "" {
		all.Set("target", c.target)
	}
	for key, values := range query {
		all[key] = values
		if key == "all-projects" {
			all.Del("project")
		}
	}
	u := c.base
	encoded := all.Encode()
	// The path is escaped already, so it is not set through u.Path.
	return u.String() + p + strings.TrimSuffix("?"+encoded, "?")
}

// refusal turns an answer of 400 and above into an error.
func refusal(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return &Error{Code: resp.StatusCode, Message: resp.Status}
	}
	var envelope api.Response
	if json.Unmarshal(text, &envelope) == nil && envelope.Error != "" {
		return &Error{Code: resp.StatusCode, Message: envelope.Error}
	}
	// Not from the API: a proxy, or another program on that port.
	message := strings.TrimSpace(string(text))
	if message == "" || len(message) > 200 || strings.HasPrefix(message, "<") {
		message = "the server answered " + resp.Status
	}
	return &Error{Code: resp.StatusCode, Message: message}
}

// call sends the request and reads the envelope.
func (c *Client) call(ctx context.Context, r request) (api.Response, string, error) {
	if r.raw == nil {
		var cancel context.CancelFunc
		timeout := cmp.Or(r.timeout, RequestTimeout)
		ctx, cancel = context.WithTimeoutCause(ctx, timeout,
			&ConnectionError{Server: c.name, Err: fmt.Errorf("no answer within %v", timeout)})
		defer cancel()
	}
	resp, err := c.open(ctx, r)
	if err != nil {
		return api.Response{}, "", err
	}
	defer resp.Body.Close()
	var envelope api.Response
	if resp.StatusCode == http.StatusNoContent {
		return envelope, "", nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&envelope); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return envelope, "", &ConnectionError{Server: c.name, Err: fmt.Errorf("answer to %s %s: %w", r.method, r.path, err)}
	}
	if envelope.Type == api.ErrorResponse {
		return envelope, "", &Error{Code: envelope.ErrorCode, Message: envelope.Error}
	}
	return envelope, resp.Header.Get("ETag"), nil
}

// get fetches one value.
func get[T any](ctx context.Context, c *Client, p string, query url.Values) (T, error) {
	value, _, err := getTagged[T](ctx, c, p, query)
	return value, err
}

// getTagged fetches one value with its ETag.
func getTagged[T any](ctx context.Context, c *Client, p string, query url.Values) (T, string, error) {
	var value T
	envelope, etag, err := c.call(ctx, request{method: http.MethodGet, path: p, query: query})
	if err != nil {
		return value, "", err
	}
	if err := json.Unmarshal(envelope.Metadata, &value); err != nil {
		return value, "", fmt.Errorf("answer to GET %s: %w", p, err)
	}
	return value, etag, nil
}

// list fetches the objects of a collection instead of their URLs.
func list[T any](ctx context.Context, c *Client, p string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	if !query.Has("recursion") {
		query.Set("recursion", "1")
	}
	return get[[]T](ctx, c, p, query)
}

// send makes a change that is done when the server answers. A server that
// answers with an operation instead is waited for.
func (c *Client) send(ctx context.Context, r request) error {
	op, err := c.start(ctx, r)
	if err != nil {
		return err
	}
	return op.Wait(ctx, nil)
}

// start makes a change that goes on in the background. A server that is done
// already gives an operation that has ended.
func (c *Client) start(ctx context.Context, r request) (*Operation, error) {
	envelope, _, err := c.call(ctx, r)
	if err != nil {
		return nil, err
	}
	op := &Operation{client: c}
	if envelope.Type != api.AsyncResponse {
		op.StatusCode, op.Status = api.Success, api.Success.String()
		return op, nil
	}
	if err := json.Unmarshal(envelope.Metadata, &op.Operation); err != nil {
		return nil, fmt.Errorf("answer to %s %s: %w", r.method, r.path, err)
	}
	return op, nil
}
