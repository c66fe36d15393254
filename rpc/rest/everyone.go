package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"muster/rpc/rest/api"
)

// perMember is how long another member may take to add its rows to a list.
const perMember = 2 * time.Second

// fromEveryone answers a list whose rows live with the members: those of every member
// that is online, in the order of their names, so that the list is the same whoever is
// asked. A member that does not answer in time degrades its own rows, never the answer.
func (s *Server) fromEveryone(rt route, r *http.Request) (any, error) {
	own, err := rt.handle(r)
	if err != nil || s.cfg.Placement == nil || s.cfg.Peers == nil {
		return own, err
	}
	members := s.cfg.Placement.Others()
	if len(members) == 0 {
		return own, nil
	}
	pieces, err := metadata(own)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(joined(pieces), &list); err != nil {
		return nil, fmt.Errorf("%s is asked of every member and is no list: %w", rt.pattern, err)
	}
	r = r.Clone(r.Context())
	s.passOn(rt, r.Header)
	lists := map[string][]json.RawMessage{s.cfg.Placement.Self(): list}
	for i, rows := range askAll[[]json.RawMessage](s.cfg.Peers, s.log, r, members, r.URL) {
		lists[members[i]] = rows
	}
	var all array
	for _, member := range slices.Sorted(maps.Keys(lists)) {
		for _, element := range lists[member] {
			all = append(all, element)
		}
	}
	return all, nil
}

// askAll gets the same URL from several members at once, with the caller's rights. The
// answer of one that does not give any in time is the zero value.
func askAll[T any](peers Peers, log *slog.Logger, r *http.Request, members []string, from *url.URL) []T {
	answers := make([]T, len(members))
	var asking sync.WaitGroup
	for i, member := range members {
		asking.Go(func() {
			answer, err := ask[T](peers, r, member, from)
			if err != nil {
				log.Warn("an answer lacks what a member knows", "member", member, "url", from.Path, "err", err)
				return
			}
			answers[i] = answer
		})
	}
	asking.Wait()
	return answers
}

// ask gets the URL from another member and decodes the metadata.
func ask[T any](peers Peers, r *http.Request, member string, from *url.URL) (T, error) {
	var metadata T
	ctx, cancel := context.WithTimeout(r.Context(), perMember)
	defer cancel()
	request := r.Clone(ctx)
	there := *from
	there.Scheme, there.Host = "http", member
	request.URL, request.RequestURI = &there, ""
	request.Body, request.ContentLength = http.NoBody, 0
	answer, err := peers.Transport(member, CallerOf(r.Context())).RoundTrip(request)
	if err != nil {
		return metadata, err
	}
	defer answer.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(answer.Body).Decode(&envelope); err != nil {
		return metadata, err
	}
	if envelope.Type != api.SyncResponse {
		return metadata, fmt.Errorf("answered %d: %s", envelope.ErrorCode, envelope.Error)
	}
	return metadata, json.Unmarshal(envelope.Metadata, &metadata)
}

func joined(pieces [][]byte) []byte {
	var all []byte
	for _, piece := range pieces {
		all = append(all, piece...)
	}
	return all
}
