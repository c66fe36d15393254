package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"muster/rpc/rest/api"
)

// perMember is how long another member may take to add its rows to a list.
const perMember = 2 * time.Second

// fromEveryone answers a list whose rows live with the members: this member's,
// then those of every other that is online. A member that does not answer in
// time degrades its own rows, never the answer.
func (s *Server) fromEveryone(rt route, r *http.Request) (any, error) {
	own, err := s.handled(rt, r)
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
	lists := make([][]json.RawMessage, 1+len(members))
	if err := json.Unmarshal(joined(pieces), &lists[0]); err != nil {
		return nil, fmt.Errorf("%s is asked of every member and is no list: %w", rt.pattern, err)
	}
	var asking sync.WaitGroup
	for i, member := range members {
		asking.Go(func() {
			list, err := s.ask(r, member)
			if err != nil {
				s.log.Warn("a list lacks a member's rows", "member", member, "url", r.URL.Path, "err", err)
			}
			lists[1+i] = list
		})
	}
	asking.Wait()
	var all array
	for _, list := range lists {
		for _, element := range list {
			all = append(all, element)
		}
	}
	return all, nil
}

// ask puts the request to another member and returns the list it answers.
func (s *Server) ask(r *http.Request, member string) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(r.Context(), perMember)
	defer cancel()
	request := r.Clone(ctx)
	request.URL.Scheme, request.URL.Host, request.RequestURI = "http", member, ""
	request.Body, request.ContentLength = http.NoBody, 0
	answer, err := s.cfg.Peers.Transport(member, CallerOf(r.Context())).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(answer.Body).Decode(&envelope); err != nil {
		return nil, err
	}
	if envelope.Type != api.SyncResponse {
		return nil, fmt.Errorf("answered %d: %s", envelope.ErrorCode, envelope.Error)
	}
	var list []json.RawMessage
	return list, json.Unmarshal(envelope.Metadata, &list)
}

func joined(pieces [][]byte) []byte {
	var all []byte
	for _, piece := range pieces {
		all = append(all, piece...)
	}
	return all
}
