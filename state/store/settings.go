package store

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"muster/state"
	"muster/state/store/sqlgen"
)

// SetSettings changes keys of the server configuration, all or none.
type SetSettings struct {
	// Cluster holds keys of the whole cluster; the empty value unsets a key.
	Cluster map[string]string
	// Local holds keys of the member named by Member.
	Member string
	Local  map[string]string
	// Address is where the member is reached when core.https_address is among Local and
	// names a host; empty means at core.https_address itself.
	Address string `json:",omitempty"`
	// ExpectRevision and ExpectLocalRevision, when not zero, are what
	// View.SettingsRevision said of the two scopes; ErrStale if it is otherwise.
	ExpectRevision      state.Revision
	ExpectLocalRevision state.Revision
	Hint                Hint
}

func (SetSettings) name() string { return "set-settings" }

func (c SetSettings) apply(ctx context.Context, t *tx) error {
	if err := c.check(ctx, t); err != nil {
		return err
	}
	if _, opens := c.Cluster[trustPasswordKey]; opens {
		if err := t.mayGrant(ctx, t.requestor.Fingerprint()); err != nil {
			return err
		}
	}
	// Only the first change of a command is the event; the keys are its context.
	hint := c.Hint
	for _, key := range slices.Sorted(maps.Keys(c.Cluster)) {
		value := c.Cluster[key]
		if err := t.q.SetClusterSetting(ctx, sqlgen.SetClusterSettingParams{Key: key, Value: value, Revision: t.rev()}); err != nil {
			return wrap(err, "set %s", key)
		}
		t.record(KindSetting, &state.Setting{Key: key, Value: value}, hint, "config-updated")
		hint = silent
	}
	if err := c.relocate(ctx, t); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(c.Local)) {
		value := c.Local[key]
		err := t.q.SetMemberSetting(ctx, sqlgen.SetMemberSettingParams{Member: c.Member, Key: key, Value: value, Revision: t.rev()})
		if err != nil {
			return wrap(err, "set %s of member %q", key, c.Member)
		}
		t.record(KindSetting, &state.Setting{Member: c.Member, Key: key, Value: value}, hint, "config-updated")
		hint = silent
	}
	return nil
}

// relocate gives a member of a cluster the address that it is to listen on: the others
// reach it there.
func (c SetSettings) relocate(ctx context.Context, t *tx) error {
	address, changes := c.Local[addressKey]
	if !changes {
		return nil
	}
	if address != "" {
		address = cmp.Or(c.Address, address)
	}
	m, err := t.member(ctx, c.Member)
	if err != nil || m.Address == "" || m.Address == address {
		return err
	}
	if address == "" {
		return state.Errorf(state.ErrInvalid, "%s can't be unset while the server is in a cluster: the other members reach it there", addressKey)
	}
	members, err := loaders[KindMember](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range members {
		if other := noun.(*state.Member); other.Address == address {
			return state.Errorf(state.ErrExists, "member %q has the address %s already", other.Name, address)
		}
	}
	m.Address = address
	return t.saveMember(ctx, m, silent, "")
}

const (
	// addressKey is the setting that says where a member listens.
	addressKey = "core.https_address"
	// trustPasswordKey is the setting that lets in whoever knows it.
	trustPasswordKey = "core.trust_password"
)

// check refuses settings that are nobody's, or that were made up for others.
func (c SetSettings) check(ctx context.Context, t *tx) error {
	if len(c.Local) > 0 {
		if _, err := t.member(ctx, c.Member); err != nil {
			return err
		}
	}
	if c.ExpectRevision == 0 && c.ExpectLocalRevision == 0 {
		return nil
	}
	settings, err := loadSettings(ctx, t.q)
	if err != nil {
		return err
	}
	var cluster, local state.Revision
	for _, noun := range settings {
		switch s := noun.(*state.Setting); s.Member {
		case "":
			cluster = max(cluster, s.Revision)
		case c.Member:
			local = max(local, s.Revision)
		}
	}
	if err := expect(c.ExpectRevision, int64(cluster), "the configuration"); err != nil {
		return err
	}
	return expect(c.ExpectLocalRevision, int64(local), "the configuration of member %q", c.Member)
}

func loadSettings(ctx context.Context, q *sqlgen.Queries) ([]any, error) {
	cluster, err := q.ListClusterSettings(ctx)
	if err != nil {
		return nil, err
	}
	members, err := q.ListMemberSettings(ctx)
	if err != nil {
		return nil, err
	}
	var nouns []any
	for _, r := range cluster {
		nouns = append(nouns, settingNoun("", r.Key, r.Value, r.Revision))
	}
	for _, r := range members {
		nouns = append(nouns, settingNoun(r.Member, r.Key, r.Value, r.Revision))
	}
	return nouns, nil
}

func settingNoun(member, key, value string, revision int64) *state.Setting {
	return &state.Setting{Meta: state.Meta{Revision: state.Revision(revision)}, Member: member, Key: key, Value: value}
}
