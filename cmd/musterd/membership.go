package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/rpc/rest"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// askMembership asks the other members whether this one still is a member, all at once.
// It returns errRemoved when one says with certainty that it is not, coord.ErrOutdated when it
// was started elsewhere since, and nil as soon as one says that it is, or nobody can tell.
func (m *member) askMembership(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	others := m.book.ids(m.identity.MemberID())
	answers := make(chan error, len(others))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, id := range others {
		peer, _ := m.book.find(id)
		asking.Go(func() { answers <- m.membershipAt(ctx, peer.Address) })
	}
	for range others {
		select {
		case err := <-answers:
			if err == nil || errors.Is(err, errRemoved) || errors.Is(err, coord.ErrOutdated) {
				return err
			}
			m.log.Debug("ask another member whether this one still is a member", "error", err)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// membershipAt asks one member. An error that is not errRemoved says nothing.
func (m *member) membershipAt(ctx context.Context, address string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*m.identity.Member().TLS()},
		// Members pin the cluster's certificate as clients do.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := pki.Fingerprint(s.PeerCertificates[0]); got != m.identity.Server().Fingerprint() {
				return state.Errorf(state.ErrForbidden, "the server at %s shows certificate %.12s, and not the cluster's", address, got)
			}
			return nil
		},
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/internal/membership", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&envelope); err != nil {
		return err
	}
	if envelope.Type != api.SyncResponse {
		return errors.New(envelope.Error)
	}
	var answer rest.InternalMembership
	if err := json.Unmarshal(envelope.Metadata, &answer); err != nil {
		return err
	}
	if !answer.Member {
		return errRemoved
	}
	if known, err := coord.KnowsLife(filepath.Join(m.dir, "raft"), answer.Life); err != nil || !known {
		return cmp.Or(err, coord.ErrOutdated)
	}
	return nil
}

// recordMove tells the others where this member is by now, when it was told so on its
// own disk.
func (m *member) recordMove(ctx context.Context) error {
	id := m.identity.MemberID()
	to, moved := m.book.moved(id)
	if !moved {
		return nil
	}
	self, err := m.store.View().MemberByID(id)
	if err != nil || self.Address != to.From {
		return err
	}
	m.log.Info("this member has another address", "before", to.From, "now", to.To)
	_, err = m.store.Apply(ctx, store.SetSettings{Member: self.Name, Local: map[string]string{"core.https_address": to.To}})
	return err
}
