package store

import (
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"muster/state"
)

// View is all state at one revision. Its objects are immutable: copy before
// changing. Singular accessors answer ErrNotFound with a sentence; plural ones
// return lists sorted by identity (project, then name), and an empty project or
// member means all of them. A View costs next to nothing and never blocks; hold
// it no longer than one request, since it keeps what it shows from being freed.
type View struct {
	txn      *memdb.Txn
	revision state.Revision
	schema   int64
}

// Revision is the revision that the View shows.
func (v *View) Revision() state.Revision { return v.revision }

// Schema is that of the database which the View shows; zero while it shows none.
func (v *View) Schema() int64 { return v.schema }

// first returns the object whose key in the index is k, or nil.
func first[T any](v *View, kind Kind, index string, k []byte) *T {
	raw, err := v.txn.First(string(kind), index, k)
	if err != nil {
		panic(err) // only an index that does not exist
	}
	if raw == nil {
		return nil
	}
	return raw.(*T)
}

// walk calls yield with each object whose key in the index has the prefix, in
// order, until it returns false.
func walk[T any](v *View, kind Kind, index string, prefix []byte, yield func(*T) bool) {
	iterator, err := v.txn.Get(string(kind), index+"_prefix", prefix)
	if err != nil {
		panic(err) // only an index that does not exist
	}
	for raw := iterator.Next(); raw != nil; raw = iterator.Next() {
		if !yield(raw.(*T)) {
			return
		}
	}
}

// list returns the objects whose key in the index starts with the given parts;
// an empty first part means all objects.
func list[T any](v *View, kind Kind, index string, parts ...string) []*T {
	if len(parts) > 0 && parts[0] == "" {
		parts = nil
	}
	var found []*T
	walk(v, kind, index, key(parts...), func(object *T) bool {
		found = append(found, object)
		return true
	})
	return found
}

// byPrefix returns the one object whose key starts with the given whole parts and
// then prefix. what names the kind of thing in errors.
func byPrefix[T any](v *View, kind Kind, what string, parts []string, prefix string) (*T, error) {
	if prefix == "" {
		return nil, state.Errorf(state.ErrInvalid, "an empty %s fingerprint names nothing", what)
	}
	prefix = strings.ToLower(prefix)
	if whole := first[T](v, kind, byID, key(append(slices.Clone(parts), prefix)...)); whole != nil {
		return whole, nil
	}
	k := append(key(parts...), prefix...)
	var found []*T
	walk(v, kind, byID, k, func(object *T) bool {
		found = append(found, object)
		return len(found) < 2
	})
	switch len(found) {
	case 0:
		return nil, state.Errorf(state.ErrNotFound, "%s %q not found", what, prefix)
	case 1:
		return found[0], nil
	}
	return nil, state.Errorf(state.ErrInvalid, "%s fingerprint %q is ambiguous: give more of it", what, prefix)
}

// Project returns the project of that name.
func (v *View) Project(name string) (*state.Project, error) {
	if p := first[state.Project](v, KindProject, byID, key(name)); p != nil {
		return p, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "project %q not found", name)
}

// Projects returns all projects.
func (v *View) Projects() []*state.Project { return list[state.Project](v, KindProject, byID) }

// Member returns the member of that name.
func (v *View) Member(name string) (*state.Member, error) {
	if m := first[state.Member](v, KindMember, byID, key(name)); m != nil {
		return m, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "cluster member %q not found", name)
}

// MemberByID returns the member of that ID.
func (v *View) MemberByID(id string) (*state.Member, error) {
	if m := first[state.Member](v, KindMember, byUUID, key(id)); m != nil {
		return m, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "no cluster member has ID %q", id)
}

// Members returns all members.
func (v *View) Members() []*state.Member { return list[state.Member](v, KindMember, byID) }

// Group returns the cluster group of that name.
func (v *View) Group(name string) (*state.Group, error) {
	if g := first[state.Group](v, KindGroup, byID, key(name)); g != nil {
		return g, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "cluster group %q not found", name)
}

// Groups returns all cluster groups.
func (v *View) Groups() []*state.Group { return list[state.Group](v, KindGroup, byID) }

// Setting returns the value of a key: of the whole cluster when member is empty,
// or of that member. A key that is not set has the empty value.
func (v *View) Setting(member, name string) string {
	if s := first[state.Setting](v, KindSetting, byID, key(member, name)); s != nil {
		return s.Value
	}
	return ""
}

// Settings returns the keys that are set: those of the whole cluster when member
// is empty, or those of that member.
func (v *View) Settings(member string) []*state.Setting {
	var found []*state.Setting
	walk(v, KindSetting, byID, key(member), func(s *state.Setting) bool {
		if s.Value != "" {
			found = append(found, s)
		}
		return true
	})
	return found
}

// SettingsRevision returns the revision of the last change to the keys of the
// whole cluster when member is empty, or of that member; zero when none was ever
// set.
func (v *View) SettingsRevision(member string) state.Revision {
	var last state.Revision
	walk(v, KindSetting, byID, key(member), func(s *state.Setting) bool {
		last = max(last, s.Revision)
		return true
	})
	return last
}

// Certificate returns the certificate with that fingerprint, which may be
// shortened as long as it is unique: if it is not, the error is ErrInvalid.
func (v *View) Certificate(fingerprint string) (*state.Certificate, error) {
	return byPrefix[state.Certificate](v, KindCertificate, "certificate", nil, fingerprint)
}

// Certificates returns the trust store.
func (v *View) Certificates() []*state.Certificate {
	return list[state.Certificate](v, KindCertificate, byID)
}

// Token returns the token of that ID.
func (v *View) Token(id string) (*state.Token, error) {
	if t := first[state.Token](v, KindToken, byID, key(id)); t != nil {
		return t, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "token %q not found", id)
}

// Tokens returns the tokens that were not used yet, also those that expired.
func (v *View) Tokens() []*state.Token { return list[state.Token](v, KindToken, byID) }

// Profile returns a profile.
func (v *View) Profile(project, name string) (*state.Profile, error) {
	if p := first[state.Profile](v, KindProfile, byID, key(project, name)); p != nil {
		return p, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "profile %q not found", name)
}

// Profiles returns the profiles of the project.
func (v *View) Profiles(project string) []*state.Profile {
	return list[state.Profile](v, KindProfile, byID, project)
}

// ProfileUsers returns the instances that have the profile.
func (v *View) ProfileUsers(project, name string) []*state.Instance {
	return list[state.Instance](v, KindInstance, byProfile, project, name)
}

// Instance returns an instance.
func (v *View) Instance(project, name string) (*state.Instance, error) {
	if i := first[state.Instance](v, KindInstance, byID, key(project, name)); i != nil {
		return i, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "instance %q not found", name)
}

// Instances returns the instances of the project.
func (v *View) Instances(project string) []*state.Instance {
	return list[state.Instance](v, KindInstance, byID, project)
}

// InstancesOn returns the instances of all projects that the member hosts.
func (v *View) InstancesOn(member string) []*state.Instance {
	return list[state.Instance](v, KindInstance, byMember, member)
}

// Snapshot returns a snapshot of an instance.
func (v *View) Snapshot(project, instance, name string) (*state.Snapshot, error) {
	if s := first[state.Snapshot](v, KindSnapshot, byID, key(project, instance, name)); s != nil {
		return s, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "snapshot %q of instance %q not found", name, instance)
}

// Snapshots returns the snapshots of an instance, or of all instances of the
// project when instance is empty.
func (v *View) Snapshots(project, instance string) []*state.Snapshot {
	if instance == "" {
		return list[state.Snapshot](v, KindSnapshot, byID, project)
	}
	return list[state.Snapshot](v, KindSnapshot, byID, project, instance)
}

// Image returns the image with that fingerprint, which may be shortened as long
// as it is unique in the project: if it is not, the error is ErrInvalid.
func (v *View) Image(project, fingerprint string) (*state.Image, error) {
	return byPrefix[state.Image](v, KindImage, "image", []string{project}, fingerprint)
}

// Images returns the images of the project.
func (v *View) Images(project string) []*state.Image {
	return list[state.Image](v, KindImage, byID, project)
}

// Alias returns an image alias.
func (v *View) Alias(project, name string) (*state.ImageAlias, error) {
	if a := first[state.ImageAlias](v, KindAlias, byID, key(project, name)); a != nil {
		return a, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "image alias %q not found", name)
}

// Aliases returns the image aliases of the project.
func (v *View) Aliases(project string) []*state.ImageAlias {
	return list[state.ImageAlias](v, KindAlias, byID, project)
}

// AliasesOf returns the aliases of the image with that full fingerprint.
func (v *View) AliasesOf(project, fingerprint string) []*state.ImageAlias {
	return list[state.ImageAlias](v, KindAlias, byTarget, project, fingerprint)
}

// Network returns a managed network.
func (v *View) Network(project, name string) (*state.Network, error) {
	if n := first[state.Network](v, KindNetwork, byID, key(project, name)); n != nil {
		return n, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "network %q not found", name)
}

// Networks returns the managed networks of the project.
func (v *View) Networks(project string) []*state.Network {
	return list[state.Network](v, KindNetwork, byID, project)
}

// Pool returns a storage pool.
func (v *View) Pool(name string) (*state.Pool, error) {
	if p := first[state.Pool](v, KindPool, byID, key(name)); p != nil {
		return p, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "storage pool %q not found", name)
}

// Pools returns all storage pools.
func (v *View) Pools() []*state.Pool { return list[state.Pool](v, KindPool, byID) }

// Volume returns a volume. Outside shared pools each member may have one of that
// name: then the error is ErrInvalid, and VolumeOn tells them apart.
func (v *View) Volume(pool, project string, kind state.VolumeType, name string) (*state.Volume, error) {
	found := list[state.Volume](v, KindVolume, byID, pool, project, string(kind), name)
	switch len(found) {
	case 0:
		return nil, state.Errorf(state.ErrNotFound, "storage volume %q of pool %q not found", name, pool)
	case 1:
		return found[0], nil
	}
	return nil, state.Errorf(state.ErrInvalid, "%d members have a volume %q in pool %q: name the member", len(found), name, pool)
}

// VolumeOn returns the volume of that name that the member holds; in a shared
// pool the member is empty.
func (v *View) VolumeOn(member, pool, project string, kind state.VolumeType, name string) (*state.Volume, error) {
	k := key(pool, project, string(kind), name, member)
	if volume := first[state.Volume](v, KindVolume, byID, k); volume != nil {
		return volume, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "storage volume %q of pool %q not found on member %q", name, pool, member)
}

// Volumes returns the volumes of the pool in the project, or in all projects when
// project is empty.
func (v *View) Volumes(pool, project string) []*state.Volume {
	if project == "" {
		return list[state.Volume](v, KindVolume, byID, pool)
	}
	return list[state.Volume](v, KindVolume, byID, pool, project)
}

// Intent returns the intent that is open for a subject; subject is "instance",
// "snapshot", "image", "network", "pool" or "volume".
func (v *View) Intent(subject, project, name string) (*state.Intent, error) {
	if i := first[state.Intent](v, KindIntent, byID, key(subject, project, name)); i != nil {
		return i, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "nothing is under way for %s %q", subject, name)
}

// IntentByID returns the open intent of that ID.
func (v *View) IntentByID(id string) (*state.Intent, error) {
	if i := first[state.Intent](v, KindIntent, byUUID, key(id)); i != nil {
		return i, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "intent %q not found", id)
}

// Intents returns the open intents that the member carries out, oldest first.
func (v *View) Intents(member string) []*state.Intent {
	found := list[state.Intent](v, KindIntent, byMember, member)
	slices.SortStableFunc(found, func(a, b *state.Intent) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return found
}
