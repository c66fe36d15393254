package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"muster/rpc/rest"
	"muster/rpc/rest/api"
	"muster/state"
)

// remote asks other members in this member's name.
type remote struct{ m *member }

// caller is who another member takes this one for: a member may do everything.
func (r remote) caller() rest.Caller {
	return rest.Caller{Trust: rest.Full, Protocol: "peer", Name: r.m.cluster.Self()}
}

func (r remote) send(ctx context.Context, member, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+member+path, body)
	if err != nil {
		return nil, err
	}
	view := r.m.store.View()
	if _, err := view.Member(member); err == nil {
		// One that was removed, and is told so, may never hear of that revision: nobody
		// sends it changes any more.
		request.Header.Set(rest.RevisionHeader, strconv.FormatInt(int64(view.Revision()), 10))
	}
	maps.Copy(request.Header, header)
	return r.m.peers.Transport(member, r.caller()).RoundTrip(request)
}

// Request implements cluster.Remote.
func (r remote) Request(ctx context.Context, member, method, path string, body, answer any) error {
	content := []byte(nil)
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	response, err := r.send(ctx, member, method, path, bytes.NewReader(content), nil)
	if err != nil {
		return state.Errorf(state.ErrUnavailable, "member %q: %w", member, err)
	}
	defer response.Body.Close()
	envelope, err := envelopeOf(response)
	if err != nil {
		return fmt.Errorf("member %q: %w", member, err)
	}
	if envelope.Type == api.AsyncResponse {
		return r.await(ctx, strings.TrimPrefix(envelope.Operation, "/1.0/operations/"))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(envelope.Metadata, answer)
}

// Exchange implements cluster.Remote.
func (r remote) Exchange(ctx context.Context, member, path string, body io.Reader) (io.ReadCloser, error) {
	response, err := r.send(ctx, member, http.MethodPost, path, body, nil)
	if err != nil {
		return nil, state.Errorf(state.ErrUnavailable, "member %q: %w", member, err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	if _, err := envelopeOf(response); err != nil {
		return nil, fmt.Errorf("member %q: %w", member, err)
	}
	return nil, fmt.Errorf("member %q answered %s, which is no stream", member, response.Status)
}

// await waits for an operation of another member, which every member can see.
func (r remote) await(ctx context.Context, id string) error {
	// It was begun there and may not be known here yet.
	if err := r.m.coord.Barrier(ctx); err != nil {
		return err
	}
	op, err := r.m.ops.Wait(ctx, id, -1)
	if err != nil {
		return err
	}
	if op.Err != "" {
		return errors.New(op.Err)
	}
	return nil
}

// Open implements cluster.Remote.
func (r remote) Open(ctx context.Context, member, path string, offset int64) (io.ReadCloser, int64, error) {
	response, err := r.send(ctx, member, http.MethodGet, path, nil, http.Header{"Range": {fmt.Sprintf("bytes=%d-", offset)}})
	if err != nil {
		return nil, 0, err
	}
	if response.StatusCode != http.StatusPartialContent {
		defer response.Body.Close()
		if _, err := envelopeOf(response); err != nil {
			return nil, 0, err
		}
		return nil, 0, fmt.Errorf("answered %s to a request for a range", response.Status)
	}
	// RFC 9110, section 14.4: bytes FIRST-LAST/TOTAL.
	_, size, _ := strings.Cut(response.Header.Get("Content-Range"), "/")
	total, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		_ = response.Body.Close()
		return nil, 0, fmt.Errorf("answered the range %q", response.Header.Get("Content-Range"))
	}
	return response.Body, total, nil
}

// envelopeOf reads an answer that is no stream. An error answer is an error of the kind
// that its status stands for.
func envelopeOf(response *http.Response) (api.Response, error) {
	var envelope api.Response
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return envelope, fmt.Errorf("answered %s: %w", response.Status, err)
	}
	if envelope.Type != api.ErrorResponse {
		return envelope, nil
	}
	kinds := map[int]error{
		http.StatusBadRequest: state.ErrInvalid, http.StatusNotFound: state.ErrNotFound, http.StatusConflict: state.ErrConflict,
		http.StatusForbidden: state.ErrForbidden, http.StatusPreconditionFailed: state.ErrStale, http.StatusServiceUnavailable: state.ErrUnavailable,
	}
	if kind := kinds[response.StatusCode]; kind != nil {
		return envelope, state.Errorf(kind, "%s", envelope.Error)
	}
	return envelope, errors.New(envelope.Error)
}
