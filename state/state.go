// Package state is the vocabulary of muster: the nouns that the cluster
// remembers, what makes each of them valid, and the kinds of error a caller may
// act on.
//
// It holds no connection, no clock and no log, and imports nothing of muster:
// every other room speaks in its words.
package state

import "time"

// Revision numbers the changes of the cluster's state: it grows by one with
// each command that changes something and never goes back. Zero is "before the
// first change".
type Revision uint64

// DefaultProject is the project that every cluster has and that requests name
// when they name none.
const DefaultProject = "default"

// Config is a free-form map of configuration keys, as users write them.
type Config = map[string]string

// Devices maps a device's name to its options; the option "type" says what kind
// of device it is.
type Devices = map[string]map[string]string

// Meta is what every noun of the state plane carries.
type Meta struct {
	// Revision is the revision of the last change to this object. ETags derive
	// from it.
	Revision Revision
	// Memo lets an upper room keep an encoding beside an immutable object.
	Memo *Memo `json:"-"`
}

// Project groups instances, images, profiles and networks.
type Project struct {
	Meta
	Name        string
	Description string
	Config      Config
}

// Member is one machine of the cluster, as the state plane remembers it.
type Member struct {
	Meta
	// ID is chosen at first start and never changes; the consensus logs know
	// the member by it.
	ID string
	// Name is what users call the member; it can be changed.
	Name string
	// Address is host:port of the member's one port, or empty while it
	// serves only its own machine.
	Address      string
	Architecture string
	Description  string
	Config       Config
	// Certificate is the member's own certificate in PEM form.
	Certificate string
	// Capacity is what the machine has to give; zero is not known.
	Capacity Resources
	// Domain is the failure domain.
	Domain string
	// Groups are the cluster groups it is in, sorted; there is always one.
	Groups    []string
	CreatedAt time.Time
}

// DefaultDomain is the failure domain of members that were given none.
const DefaultDomain = "default"

// DefaultGroup is the cluster group that members are in unless somebody says otherwise.
const DefaultGroup = "default"

// Group is a cluster group: a named set of members.
type Group struct {
	Meta
	Name        string
	Description string
}

// Resources are an instance's needs or a member's means.
type Resources struct {
	// CPU is in thousandths of a processor; Memory and Disk are bytes.
	CPU, Memory, Disk int64
}

// Certificate is an entry of the trust store.
type Certificate struct {
	Meta
	// Fingerprint is the lower-case hex SHA-256 of the DER certificate.
	Fingerprint string
	// Type is "client" or "metrics".
	Type string
	Name string
	// PEM is the certificate itself.
	PEM        string
	Restricted bool
	Projects   []string
}

// Token lets somebody in once: its secret is shown when it is made and only a
// hash is kept.
type Token struct {
	Meta
	ID string
	// Purpose is "client" for a trust token, "member" for a join token.
	Purpose    string
	Name       string
	SecretHash string
	Restricted bool
	Projects   []string
	CreatedAt  time.Time
	// ExpiresAt is zero when the token does not expire.
	ExpiresAt time.Time
	// Operation is the token operation that shows it.
	Operation string
}

// Setting is one key of the server configuration.
type Setting struct {
	Meta
	// Member is empty for a key of the whole cluster.
	Member string
	Key    string
	Value  string
}

// Intent records a multi-step change to a host before its first step, so that
// a crash can be cleaned up after. At most one intent is open for a subject.
type Intent struct {
	Meta
	ID string
	// Member is the name of the member that carries the change out.
	Member string
	// Kind says what is under way: create, delete, rename, restore, copy …
	Kind string
	// Project, Subject and Name identify the thing changed: Subject is
	// "instance", "snapshot", "image", "network", "pool", "volume".
	Project string
	Subject string
	Name    string
	// Input is what resuming or undoing needs, as JSON.
	Input     string
	CreatedAt time.Time
}
