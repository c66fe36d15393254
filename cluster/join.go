package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/node/storage"
	"muster/state"
	"muster/state/store"
)

// maxMembers is how many members a cluster can have. The coordinator pings each of them
// all the time, and every member knows where all others are; nobody has tried more.
const maxMembers = 500

// tokenAddresses is how many addresses a join token names: people copy it.
const tokenAddresses = 8

// defaultJoinExpiry is how long a join token is good for unless
// cluster.join_token_expiry says otherwise.
const defaultJoinExpiry = 3 * time.Hour

// defaultTokenExpiry is how long a token for a client is good for unless
// core.remote_token_expiry says otherwise.
const defaultTokenExpiry = 24 * time.Hour

// JoinProtocol is what members must agree on to be in one cluster. It grows when a
// release can't work beside the one before it.
const JoinProtocol = 1

// CreateJoinToken makes a token with which a machine can join once, under that name,
// and shows it in a token operation. Cancelling the operation withdraws it.
func (c *Cluster) CreateJoinToken(ctx context.Context, name string) (OperationInfo, error) {
	if !c.Clustered() {
		return OperationInfo{}, errAlone()
	}
	if err := state.ValidateMemberName(name); err != nil {
		return OperationInfo{}, err
	}
	// The operation that shows a token is in the one log, the token in the other.
	if err := c.store.Barrier(ctx); err != nil {
		return OperationInfo{}, err
	}
	if err := c.cfg.Coord.Barrier(ctx); err != nil {
		return OperationInfo{}, err
	}
	view := c.store.View()
	if _, err := view.Member(name); err == nil {
		return OperationInfo{}, state.Errorf(state.ErrExists, "a cluster member %q exists already", name)
	}
	for _, token := range view.Tokens() {
		if token.Purpose != "member" || token.Name != name {
			continue
		}
		if op, err := c.ops.Get(token.Operation); err == nil && !op.Final() && token.ExpiresAt.After(c.now()) {
			return OperationInfo{}, state.Errorf(state.ErrExists, "a join token for member %q waits already: \"lxc cluster revoke-token %s\" withdraws it", name, name)
		}
	}
	// The token is to carry the certificate as it is by now, everywhere.
	if err := c.takeCertificate(view); err != nil {
		return OperationInfo{}, err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails since Go 1.24
	sum := sha256.Sum256([]byte(hex.EncodeToString(secret)))
	var addresses, workers []string
	for _, m := range view.Members() {
		switch {
		case !c.Online(m.ID):
		case c.Controls(m.ID):
			addresses = append(addresses, m.Address)
		default:
			workers = append(workers, m.Address)
		}
	}
	addresses = append(addresses, workers...)
	addresses = addresses[:min(len(addresses), tokenAddresses)]
	expiry := c.tokenExpiry("cluster.join_token_expiry", defaultJoinExpiry)
	token := state.Token{Purpose: "member", Name: name, SecretHash: hex.EncodeToString(sum[:]), ExpiresAt: expiry}
	return c.CreateToken(ctx, token, map[string]any{
		"serverName": name, "secret": hex.EncodeToString(secret), "fingerprint": c.cfg.Identity.Server().Fingerprint(),
		"addresses": addresses, "expiresAt": expiry.Format(time.RFC3339Nano),
	})
}

// TokenExpiry is when a token for a client that is made now expires.
func (c *Cluster) TokenExpiry() time.Time {
	return c.tokenExpiry("core.remote_token_expiry", defaultTokenExpiry)
}

// tokenExpiry is when a token that is made now expires, by a setting.
func (c *Cluster) tokenExpiry(key string, otherwise time.Duration) time.Time {
	now := c.now()
	if at, err := state.ParseExpiry(c.store.View().Setting("", key), now); err == nil && !at.IsZero() {
		return at
	}
	return now.Add(otherwise)
}

// Controls reports whether a member has both logs, or is about to.
func (c *Cluster) Controls(memberID string) bool {
	known, found := c.cfg.Coord.Member(memberID)
	return found && Controls(known)
}

// JoinRequest is what a machine that wants to join says of itself.
type JoinRequest struct {
	Name         string `json:"name"`
	Secret       string `json:"secret"`
	MemberID     string `json:"member_id"`
	Address      string `json:"address"`
	Architecture string `json:"architecture"`
	// Capacity is what its machine has to give.
	Capacity state.Resources `json:"capacity"`
	// Protocol is its JoinProtocol, Schema what its release can work with.
	Protocol int               `json:"protocol"`
	Schema   store.SchemaRange `json:"schema"`
	// Fingerprint is that of the certificate which the server shows now, so that whoever
	// answers at Address is known to be it.
	Fingerprint string `json:"fingerprint"`
	// Request is a certificate request in PEM form, made by pki.MakeRequest.
	Request string `json:"request"`
	// Witness says that it is to vote and to host nothing.
	Witness bool `json:"witness,omitempty"`
	// Pools and Networks are the configuration keys that differ on this member, by the
	// names of storage pools and networks.
	Pools    map[string]state.Config `json:"pools,omitempty"`
	Networks map[string]state.Config `json:"networks,omitempty"`
	// EndsJoin says that the server ends its join itself (EndJoin). One of a former release
	// does not: its join has ended when it is admitted.
	EndsJoin bool `json:"ends_join,omitempty"`
	// ByPassword says that Secret is the trust password, which the caller has checked, and
	// no join token's.
	ByPassword bool `json:"-"`
}

// JoinQuestion is what a machine asks before it wants to join.
type JoinQuestion struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
	// Protocol is its JoinProtocol, Schema what its release can work with.
	Protocol int               `json:"protocol"`
	Schema   store.SchemaRange `json:"schema"`
	// MemberID, Pools, Networks and ByPassword are as in JoinRequest.
	MemberID   string                  `json:"member_id,omitempty"`
	Pools      map[string]state.Config `json:"pools,omitempty"`
	Networks   map[string]state.Config `json:"networks,omitempty"`
	ByPassword bool                    `json:"-"`
}

// Peer is where a member is.
type Peer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Control says that the member has both logs, or is about to.
	Control bool `json:"control,omitempty"`
}

// JoinAnswer is what the new member needs to be one.
type JoinAnswer struct {
	Certificate string     `json:"certificate"`
	Shared      pki.Shared `json:"shared"`
	Peers       []Peer     `json:"peers"`
}

// CheckJoin says why a server that shows a join token could not join with the
// configuration that it brings, or nil. The token stays good.
func (c *Cluster) CheckJoin(ctx context.Context, ask JoinQuestion) error {
	token, err := c.joinToken(ctx, JoinRequest{Name: ask.Name, Secret: ask.Secret, MemberID: ask.MemberID, Protocol: ask.Protocol, ByPassword: ask.ByPassword})
	if err == nil {
		_, err = c.makerOf(ctx, token)
	}
	if err != nil {
		return err
	}
	if err := ask.Schema.Check(c.store.View().Schema()); err != nil {
		return err
	}
	return checkJoinConfig(c.store.View(), ask.Pools, ask.Networks)
}

// AdmitMember checks who wants to join, records the new member and uses its token up,
// in one step. From then on it is a member that joins: see joining.go. Nothing is recorded
// when anything is wrong. A server whose join has not ended may ask again.
func (c *Cluster) AdmitMember(ctx context.Context, join JoinRequest) (JoinAnswer, error) {
	token, err := c.joinToken(ctx, join)
	if err != nil {
		return JoinAnswer{}, err
	}
	maker, err := c.makerOf(ctx, token)
	if err != nil {
		return JoinAnswer{}, err
	}
	view := c.store.View()
	if err := usable(join.Address); err != nil {
		return JoinAnswer{}, err
	}
	if _, err := uuid.Parse(join.MemberID); err != nil {
		return JoinAnswer{}, state.Errorf(state.ErrInvalid, "field \"member_id\" is %q: want a UUID", join.MemberID)
	}
	for _, m := range view.Members() {
		if m.Address == join.Address && m.ID != join.MemberID {
			return JoinAnswer{}, state.Errorf(state.ErrExists, "member %q has the address %s already", m.Name, join.Address)
		}
	}
	if len(view.Members()) >= maxMembers {
		return JoinAnswer{}, state.Errorf(state.ErrConflict, "the cluster has %d members; more than %d are not supported", len(view.Members()), maxMembers)
	}
	if err := checkJoinConfig(view, join.Pools, join.Networks); err != nil {
		return JoinAnswer{}, fmt.Errorf("field \"member_config\": %w", err)
	}
	certificate, err := c.cfg.Identity.SignMember([]byte(join.Request), join.MemberID, c.now())
	if err != nil {
		return JoinAnswer{}, err
	}
	if err := c.cfg.Reach(ctx, join.Address, join.Fingerprint); err != nil {
		return JoinAnswer{}, state.Errorf(state.ErrInvalid, "member %q can't reach the joining server at %s: %w", c.Self(), join.Address, err)
	}
	config := state.Config{}
	switch {
	case join.EndsJoin:
		config[store.JoiningKey] = cmp.Or(token.SecretHash, store.JoinedByPassword)
	case join.ByPassword:
		return JoinAnswer{}, state.Errorf(state.ErrInvalid, "the joining server runs a former release, which joins by a token: make one with \"muster cluster add\"")
	}
	if join.Witness {
		if len(join.Pools)+len(join.Networks) > 0 {
			return JoinAnswer{}, state.Errorf(state.ErrInvalid, "field \"member_config\": a witness has no storage pools and no networks: leave it out")
		}
		config[store.WitnessKey] = "true"
	}
	err = c.apply(ctx, store.ConsumeToken{
		ID: token.ID, SecretHash: token.SecretHash, Now: c.now(), Maker: maker, Settings: map[string]string{"core.https_address": join.Address},
		Pools: join.Pools, Networks: join.Networks, Schema: join.Schema,
		Member: &state.Member{
			ID: join.MemberID, Name: join.Name, Address: join.Address, Architecture: join.Architecture, Capacity: join.Capacity, Certificate: string(certificate), CreatedAt: c.now(), Config: config,
		},
	})
	if err != nil {
		return JoinAnswer{}, err
	}
	if token.Operation != "" {
		if err := c.ops.Finish(ctx, token.Operation); err != nil {
			c.log.Warn("finish the operation of a token", "operation", token.Operation, "error", err)
		}
	}
	answer := JoinAnswer{Certificate: string(certificate), Shared: c.cfg.Identity.Shared()}
	for _, m := range c.store.View().Members() {
		answer.Peers = append(answer.Peers, Peer{ID: m.ID, Name: m.Name, Address: m.Address, Control: c.Controls(m.ID)})
	}
	return answer, nil
}

// Membership reports whether the holder of a member's certificate, in DER form, is a
// member still, as of now anywhere in the cluster. Who shows no certificate of this
// cluster's authority is told nothing (state.ErrForbidden).
func (c *Cluster) Membership(ctx context.Context, certificate []byte) (is bool, life string, err error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err == nil {
		_, err = leaf.Verify(x509.VerifyOptions{Roots: c.cfg.Identity.Authorities(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	}
	if err != nil || pki.MemberOf(leaf) == "" {
		return false, "", state.Errorf(state.ErrForbidden, "not authorized: this is for servers that are or were members of this cluster")
	}
	if err := c.store.Barrier(ctx); err != nil {
		return false, "", err
	}
	m, err := c.store.View().MemberByID(pki.MemberOf(leaf))
	return err == nil && m.Config[store.LostKey] == "", c.cfg.Coord.Life(pki.MemberOf(leaf)), nil
}

// checkJoinConfig refuses configuration for pools and networks that do not exist, or
// that is not the joining server's to choose.
func checkJoinConfig(view *store.View, pools, networks map[string]state.Config) error {
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		pool, err := view.Pool(name)
		if err != nil {
			return err
		}
		config := maps.Clone(pool.Config)
		for key, value := range pools[name] {
			if !state.PoolLocalKey(key) {
				return state.Errorf(state.ErrInvalid, "key %q of storage pool %q holds for all members; a joining server may choose source and size", key, name)
			}
			config[key] = value
		}
		if err := storage.Validate(state.Pool{Name: name, Driver: pool.Driver, Config: config}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		network, err := view.Network(state.DefaultProject, name)
		if err != nil {
			return err
		}
		config := maps.Clone(network.Config)
		for key, value := range networks[name] {
			if !state.NetworkLocalKey(key) {
				return state.Errorf(state.ErrInvalid, "key %q of network %q holds for all members; a joining server may choose bridge.external_interfaces", key, name)
			}
			config[key] = value
		}
		if err := state.ValidateNetworkConfig(config); err != nil {
			return err
		}
	}
	return nil
}

// ErrJoinSecret refuses a secret that is no join token's, or no longer.
var ErrJoinSecret = state.Errorf(state.ErrForbidden, "the join token is unknown, was used already or was withdrawn: ask for a new one, which \"muster cluster add\" makes on a member; or it was meant for the trust password, and is not that")

// joinToken finds the token whose secret a joining server shows, and checks that it
// could be used now, under that name and with that version of the members' protocol. The
// token has only a hash when the server was admitted by it before and its join has not
// ended, and is empty when the server showed the trust password.
func (c *Cluster) joinToken(ctx context.Context, join JoinRequest) (*state.Token, error) {
	if !c.Clustered() {
		return nil, errAlone()
	}
	if err := c.store.Barrier(ctx); err != nil {
		return nil, err
	}
	token := &state.Token{Purpose: "member", Name: join.Name}
	if !join.ByPassword {
		token = tokenOf(c.store.View(), join)
	}
	switch {
	case token == nil:
		return nil, ErrJoinSecret
	case token.Name != join.Name:
		return nil, state.Errorf(state.ErrForbidden, "this join token is for member %q, not %q", token.Name, join.Name)
	case !token.ExpiresAt.IsZero() && c.now().After(token.ExpiresAt):
		return nil, state.Errorf(state.ErrForbidden, "this join token expired at %s: ask for a new one, which \"muster cluster add\" makes on a member", token.ExpiresAt.Format(time.RFC3339))
	case join.Protocol != JoinProtocol:
		return nil, state.Errorf(state.ErrInvalid, "the joining server speaks version %d of the members' protocol and this cluster %d: install the same release on both", join.Protocol, JoinProtocol)
	}
	return token, state.ValidateMemberName(join.Name)
}

// tokenOf finds the join token that has the secret, or nil. The token of a server that was
// admitted and has not come is used up: what is returned then has no ID.
func tokenOf(view *store.View, join JoinRequest) *state.Token {
	sum := sha256.Sum256([]byte(join.Secret))
	shown := hex.EncodeToString(sum[:])
	same := func(hash string) bool { return subtle.ConstantTimeCompare([]byte(hash), []byte(shown)) == 1 }
	for _, token := range view.Tokens() {
		if token.Purpose == "member" && same(token.SecretHash) {
			return token
		}
	}
	if m, err := view.MemberByID(join.MemberID); err == nil && same(m.Config[store.JoiningKey]) {
		return &state.Token{Purpose: "member", Name: m.Name, SecretHash: shown}
	}
	return nil
}

// Fresh says why this server can't join a cluster, or nil: what it has would be lost.
func (c *Cluster) Fresh() error {
	view := c.store.View()
	switch {
	case c.Clustered():
		return state.Errorf(state.ErrConflict, "this server is in a cluster already, as member %q", c.Self())
	case len(view.Instances("")) > 0:
		return state.Errorf(state.ErrConflict, "this server has instances: delete them before it joins a cluster")
	case len(view.Images("")) > 0:
		return state.Errorf(state.ErrConflict, "this server has images: delete them before it joins a cluster")
	case len(view.Pools()) > 0:
		return state.Errorf(state.ErrConflict, "this server has storage pools: delete them before it joins a cluster, which brings its own")
	case len(view.Networks("")) > 0:
		return state.Errorf(state.ErrConflict, "this server has networks: delete them before it joins a cluster, which brings its own")
	}
	for _, op := range c.cfg.Coord.Operations() {
		if !op.Status.Final() && op.Class != coord.ClassToken {
			return state.Errorf(state.ErrConflict, "this server is busy (%s): wait until that has ended", op.Description)
		}
	}
	return nil
}
