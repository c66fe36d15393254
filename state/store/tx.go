package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// tx is what a command sees of the transaction it runs in.
type tx struct {
	q *sqlgen.Queries
	// now is when the leader runs the command.
	now time.Time
	// revision is the command's, if it changes anything.
	revision  state.Revision
	requestor *Requestor
	drafts    []draft
	// schema is that of the database.
	schema int64
}

// rev is the revision as a column holds it.
func (t *tx) rev() int64 { return int64(t.revision) }

// record notes that an object has a new version, which the command must not change
// any more. usual is the lifecycle event unless the hint says otherwise.
func (t *tx) record(kind Kind, after any, hint Hint, usual string) {
	t.note(kind, nil, after, hint, usual)
}

// recordRename is record for an object whose identity changed.
func (t *tx) recordRename(kind Kind, before, after any, hint Hint, usual string) {
	t.note(kind, before, after, hint, usual)
}

// recordDelete notes that an object is gone.
func (t *tx) recordDelete(kind Kind, before any, hint Hint, usual string) {
	t.note(kind, before, nil, hint, usual)
}

func (t *tx) note(kind Kind, before, after any, hint Hint, usual string) {
	if after != nil {
		metaOf(after).Revision = t.revision
		fill(after)
	}
	action := cmp.Or(hint.Action, usual)
	d := draft{Revision: t.revision, Index: len(t.drafts), Kind: kind, Before: before, After: after, Requestor: t.requestor, At: t.now}
	if action != NoEvent {
		d.Action, d.Context = action, hint.Context
	}
	t.drafts = append(t.drafts, d)
}

// fill puts empty maps and lists where a command left them out, and times in UTC, as
// reading the tables does.
func fill(noun any) {
	utc := func(times ...*time.Time) {
		for _, at := range times {
			*at = at.UTC()
		}
	}
	config := func(c *state.Config) {
		if *c == nil {
			*c = state.Config{}
		}
	}
	devices := func(d *state.Devices) {
		if *d == nil {
			*d = state.Devices{}
		}
	}
	list := func(l *[]string) {
		if *l == nil {
			*l = []string{}
		}
	}
	locals := func(l *state.Locals) {
		if *l == nil {
			*l = state.Locals{}
		}
		for member, local := range *l {
			config(&local.Config)
			(*l)[member] = local
		}
	}
	switch n := noun.(type) {
	case *state.Project:
		config(&n.Config)
	case *state.Member:
		config(&n.Config)
		list(&n.Groups)
	case *state.Certificate:
		list(&n.Projects)
	case *state.Token:
		list(&n.Projects)
		utc(&n.ExpiresAt)
	case *state.Profile:
		config(&n.Config)
		devices(&n.Devices)
	case *state.Instance:
		config(&n.Config)
		devices(&n.Devices)
		list(&n.Profiles)
		utc(&n.LastUsedAt)
	case *state.Snapshot:
		config(&n.Config)
		devices(&n.Devices)
		list(&n.Profiles)
		utc(&n.ExpiresAt)
	case *state.Image:
		config(&n.Properties)
		list(&n.Profiles)
		list(&n.Members)
		utc(&n.CreatedAt, &n.ExpiresAt, &n.LastUsedAt, &n.UploadedAt)
	case *state.Network:
		config(&n.Config)
		locals(&n.Locals)
	case *state.Pool:
		config(&n.Config)
		locals(&n.Locals)
	case *state.Volume:
		config(&n.Config)
	}
}

// silent is the hint of a change that follows from another.
var silent = Hint{Action: NoEvent}

// found turns the database's "no rows" into ErrNotFound with a sentence, and says
// what was being read when it is another error.
func found(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return state.Errorf(state.ErrNotFound, format+" not found", args...)
	}
	return wrap(err, "find "+format, args...)
}

// fresh turns the database's "not unique" into ErrExists with a sentence.
func fresh(err error, format string, args ...any) error {
	if isCode(err, codeUnique, codePrimaryKey) {
		return state.Errorf(state.ErrExists, format+" already exists", args...)
	}
	return wrap(err, "record "+format, args...)
}

// wrap adds what was being attempted.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// expect refuses a change that was made up for another version of the object.
func expect(want state.Revision, have int64, format string, args ...any) error {
	if want != 0 && want != state.Revision(have) {
		return state.Errorf(state.ErrStale, format+" has changed since it was read (revision %d, now %d)", append(args, want, have)...)
	}
	return nil
}

// encode writes a map or list into a column.
func encode(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps and lists of text have no way to fail
	}
	return string(raw)
}

// encodeConfig writes a configuration into a column.
func encodeConfig(c state.Config) string {
	if c == nil {
		return "{}"
	}
	return encode(c)
}

// encodeDevices writes devices into a column.
func encodeDevices(d state.Devices) string {
	if d == nil {
		return "{}"
	}
	return encode(d)
}

// encodeList writes a list of names into a column.
func encodeList(l []string) string {
	if l == nil {
		return "[]"
	}
	return encode(l)
}

// decodeColumn reads what encode wrote. A nil map or list never comes back.
func decodeColumn[T any](column string) (T, error) {
	var v T
	if err := json.Unmarshal([]byte(column), &v); err != nil {
		return v, fmt.Errorf("column holds %q: %w", column, err)
	}
	return v, nil
}

// optional writes a time that may be unset.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// moment reads a time that may be unset.
func moment(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// names reads names that were joined by slashes.
func names(joined string) []string {
	if joined == "" {
		return []string{}
	}
	return strings.Split(joined, "/")
}

// created gives a time that was left out: now.
func (t *tx) created(at time.Time) time.Time {
	if at.IsZero() {
		return t.now
	}
	return at.UTC()
}

// loaders read every object of a kind.
var loaders = map[Kind]func(context.Context, *sqlgen.Queries) ([]any, error){
	KindProject:     loader((*sqlgen.Queries).ListProjects, projectNoun),
	KindMember:      loader((*sqlgen.Queries).ListMembers, memberNoun),
	KindGroup:       loader((*sqlgen.Queries).ListGroups, groupNoun),
	KindSetting:     loadSettings,
	KindCertificate: loader((*sqlgen.Queries).ListCertificates, certificateNoun),
	KindToken:       loader((*sqlgen.Queries).ListTokens, tokenNoun),
	KindProfile:     loader((*sqlgen.Queries).ListProfiles, profileNoun),
	KindInstance: loader((*sqlgen.Queries).ListInstances, func(r sqlgen.ListInstancesRow) (*state.Instance, error) {
		return instanceNoun(r.Instance, r.Profiles)
	}),
	KindSnapshot: loader((*sqlgen.Queries).ListSnapshots, func(r sqlgen.ListSnapshotsRow) (*state.Snapshot, error) {
		return snapshotNoun(r.Snapshot, r.ProjectName, r.InstanceName)
	}),
	KindImage: loader((*sqlgen.Queries).ListImages, func(r sqlgen.ListImagesRow) (*state.Image, error) {
		return imageNoun(r.Image, r.Members)
	}),
	KindAlias: loader((*sqlgen.Queries).ListAliases, aliasNoun),
	KindNetwork: withLocals(SubjectNetwork, loader((*sqlgen.Queries).ListNetworks, networkNoun), func(noun any) (subject, *state.Locals) {
		n := noun.(*state.Network)
		return networkSubject(n.Project, n.Name), &n.Locals
	}),
	KindPool: withLocals(SubjectPool, loader((*sqlgen.Queries).ListPools, poolNoun), func(noun any) (subject, *state.Locals) {
		p := noun.(*state.Pool)
		return poolSubject(p.Name), &p.Locals
	}),
	KindVolume: loader((*sqlgen.Queries).ListVolumes, volumeNoun),
	KindIntent: loader((*sqlgen.Queries).ListIntents, intentNoun),
}

func loader[R, N any](list func(*sqlgen.Queries, context.Context) ([]R, error), noun func(R) (*N, error)) func(context.Context, *sqlgen.Queries) ([]any, error) {
	return func(ctx context.Context, q *sqlgen.Queries) ([]any, error) {
		rows, err := list(q, ctx)
		if err != nil {
			return nil, err
		}
		nouns := make([]any, len(rows))
		for i, row := range rows {
			if nouns[i], err = noun(row); err != nil {
				return nil, err
			}
		}
		return nouns, nil
	}
}
