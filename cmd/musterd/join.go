package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"muster/cluster"
	"muster/cluster/pki"
	"muster/rpc/mux"
	"muster/rpc/rest"
	"muster/rpc/rest/api"
	"muster/state"
)

// joinTimeout bounds what a joining server asks of the cluster.
const joinTimeout = 30 * time.Second

// answerTimeout bounds how long one member may take to be reached.
const answerTimeout = 5 * time.Second

// joiningFile holds what a server that was admitted has yet to become. From the
// moment it exists this server is a member of the cluster; whoever finds it finishes
// the work.
const joiningFile = "joining.json"

// joining is the content of joiningFile.
type joining struct {
	Answer cluster.JoinAnswer `json:"answer"`
	Key    string             `json:"key"`
}

// Join implements rest.Daemon: the server asks to be admitted. It begins anew as a member
// when BeginAnew is called.
func (m *member) Join(ctx context.Context, join rest.JoinSpec) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := m.cluster.Fresh(); err != nil {
		return err
	}
	address, err := mux.ParseAddress(join.ServerAddress)
	if err != nil {
		return fmt.Errorf("field \"server_address\": %w", err)
	}
	if address, err = cluster.ReachableAddress(ctx, address); err != nil {
		return fmt.Errorf("field \"server_address\": %w", err)
	}
	before := m.mux.Address()
	if err := m.mux.SetAddress(ctx, address); err != nil {
		return err
	}
	err = m.askToJoin(ctx, join)
	if err != nil {
		if back := m.mux.SetAddress(context.WithoutCancel(ctx), before); back != nil {
			m.log.Error("return to the former address", "address", before, "error", back)
		}
		return err
	}
	m.anew.Store(true)
	return nil
}

func (m *member) askToJoin(ctx context.Context, join rest.JoinSpec) error {
	request, key, err := pki.MakeRequest()
	if err != nil {
		return err
	}
	var answer cluster.JoinAnswer
	err = askCluster(ctx, join, "/internal/join", cluster.JoinRequest{
		Name: join.Name, Secret: join.Secret, MemberID: m.identity.MemberID(), Address: m.mux.Address(),
		Architecture: m.cluster.Architecture(), Capacity: m.node.Capacity(), Protocol: cluster.JoinProtocol, Schema: m.store.KnownSchema(),
		Fingerprint: m.identity.Server().Fingerprint(), Request: string(request),
		Pools: join.Pools, Networks: join.Networks, Witness: m.witness, EndsJoin: true,
	}, &answer)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(joining{Answer: answer, Key: string(key)})
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(m.dir, joiningFile), encoded)
}

// JoinTerms implements rest.Daemon.
func (m *member) JoinTerms(ctx context.Context, join rest.JoinSpec) ([]api.ClusterMemberConfigKey, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := m.cluster.Fresh(); err != nil {
		return nil, err
	}
	var terms rest.InternalJoinTerms
	err := askCluster(ctx, join, "/internal/join/terms", cluster.JoinQuestion{
		Name: join.Name, Secret: join.Secret, MemberID: m.identity.MemberID(), Protocol: cluster.JoinProtocol, Schema: m.store.KnownSchema(), Pools: join.Pools, Networks: join.Networks,
	}, &terms)
	if err != nil {
		return nil, err
	}
	if m.witness {
		return nil, nil // it has no part of pools and networks
	}
	for _, name := range slices.Sorted(maps.Keys(join.Pools)) {
		if err := m.node.CheckPool(ctx, state.Pool{Name: name, Driver: terms.Drivers[name], Config: join.Pools[name]}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(join.Networks)) {
		for port := range strings.SplitSeq(join.Networks[name]["bridge.external_interfaces"], ",") {
			if _, err := net.InterfaceByName(strings.TrimSpace(port)); err != nil {
				return nil, state.Errorf(state.ErrInvalid, "network %s: this server has no interface %q", name, strings.TrimSpace(port))
			}
		}
	}
	return terms.MemberConfig, nil
}

// askCluster asks the members of a cluster in turn, until one of them has answered or
// refused.
func askCluster(ctx context.Context, join rest.JoinSpec, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	var failed error
	for _, address := range join.Addresses {
		err := askMember(ctx, address, join.Fingerprint, path, body, answer)
		if err == nil || state.Kind(err) != nil && !errors.Is(err, state.ErrUnavailable) {
			return err
		}
		if failed != nil {
			err = state.Errorf(state.ErrUnavailable, "%w; %w", failed, err)
		}
		if failed = err; ctx.Err() != nil {
			break
		}
	}
	return failed
}

// askMember asks one member of the cluster.
func askMember(ctx context.Context, address, fingerprint, path string, body []byte, answer any) error {
	client := http.Client{Transport: &http.Transport{
		// A member that is dead or stands still must leave time to ask the others.
		DialContext: (&net.Dialer{Timeout: answerTimeout}).DialContext, TLSHandshakeTimeout: answerTimeout,
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// The token pins the cluster's certificate; nothing else is to be trusted.
			InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				if got := pki.Fingerprint(s.PeerCertificates[0]); !strings.EqualFold(got, fingerprint) {
					return state.Errorf(state.ErrForbidden, "the server at %s shows certificate %.12s, the token is for %.12s: it is another cluster's", address, got, fingerprint)
				}
				return nil
			},
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return state.Errorf(state.ErrInvalid, "address %q: %w", address, err)
	}
	response, err := client.Do(request)
	if errors.Is(err, state.ErrForbidden) {
		return err
	}
	if err != nil {
		return state.Errorf(state.ErrUnavailable, "the cluster can't be reached at %s: %w", address, err)
	}
	defer response.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(io.LimitReader(response.Body, 16<<20)).Decode(&envelope); err != nil {
		return state.Errorf(state.ErrUnavailable, "the server at %s does not answer as a member would: %w", address, err)
	}
	if envelope.Type != api.SyncResponse {
		kind := state.ErrInvalid
		if envelope.ErrorCode >= http.StatusInternalServerError {
			kind = state.ErrUnavailable
		}
		return state.Errorf(kind, "the cluster refuses: %s", envelope.Error)
	}
	return json.Unmarshal(envelope.Metadata, answer)
}

// reach tries whether the server with that certificate answers at an address, and not
// another one that the address leads to from here.
func reach(ctx context.Context, address, fingerprint string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}} //nolint:gosec // only whether somebody answers is asked
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := pki.Fingerprint(conn.(*tls.Conn).ConnectionState().PeerCertificates[0]); got != fingerprint {
		return fmt.Errorf("another server answers there, with certificate %.12s", got)
	}
	return nil
}

// finishJoining makes an admitted server the member that it was admitted as: it sets aside
// the logs that it had alone and takes the cluster's certificates. It may be cut off
// anywhere and begun again.
func finishJoining(dir string) error {
	path := filepath.Join(dir, joiningFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var j joining
	if err := json.Unmarshal(data, &j); err != nil {
		return state.Errorf(state.ErrConflict, "%s is damaged: remove this member from the cluster, remove the file, and join again: %w", path, err)
	}
	if err := setAside(dir); err != nil {
		return fmt.Errorf("set aside what this server was alone: %w", err)
	}
	if err := pki.Adopt(dir, j.Answer.Shared, []byte(j.Answer.Certificate), []byte(j.Key)); err != nil {
		return fmt.Errorf("take the cluster's certificates: %w", err)
	}
	peers := map[string]cluster.Peer{}
	for _, p := range j.Answer.Peers {
		peers[p.ID] = p
	}
	if err := writeBook(filepath.Join(dir, "members.json"), bookContent{Joined: true, Joining: true, Peers: peers}); err != nil {
		return err
	}
	return os.Remove(path)
}

// dropLogs removes both consensus logs, with all that they hold.
func dropLogs(dir string) error {
	// The marks of what was in use first: without them nobody misses the rest.
	for _, logs := range []string{"database.used", "raft.used", "raft.lives", "database", "raft", "database.gone", "raft.gone"} {
		if err := os.RemoveAll(filepath.Join(dir, logs)); err != nil {
			return err
		}
	}
	return nil
}

// lobbyAfter is how long a start may take before the local socket says what it waits for.
const lobbyAfter = 2 * time.Second

var errWaiting = state.Errorf(state.ErrUnavailable, "this member waits for the others: most of the cluster's database members must be up (\"musterd cluster list-database\" shows them; if they are gone for good, \"musterd cluster recover-from-quorum-loss\")")

// awaitMembership returns once this member sees itself in the state plane: most of
// the database's members are up, and the cluster's leaders have let this one in.
func (m *member) awaitMembership(ctx context.Context) error {
	began, told := time.Now(), time.Now()
	var waiting *lobby
	defer func() {
		if waiting != nil {
			waiting.close(ctx)
		}
	}()
	for {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		err := m.store.Barrier(asking)
		if err == nil {
			// Who is alive and what is under way is to be known from the first answer on.
			err = m.coord.WaitFilled(asking)
		}
		cancel()
		if err == nil {
			if _, err := m.store.View().MemberByID(m.identity.MemberID()); err == nil {
				return nil
			}
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			m.log.Warn("waiting for the cluster to let this member in: most of its database members must be up", "error", err)
			if err := m.askMembership(ctx, time.Second); err != nil {
				return err
			}
		}
		if waiting == nil && time.Since(began) > lobbyAfter {
			local, err := m.socket()
			if err != nil {
				return err
			}
			if waiting, err = openLobby(local, errWaiting, whoWaits{shutDown: m.giveUpWaiting, database: m.Database}); err != nil {
				return err
			}
		}
		select {
		case <-m.ended:
			return errEnded
		case err := <-m.store.Broken():
			return err
		case err := <-m.coord.Replaced():
			return err
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
