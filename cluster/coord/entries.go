package coord

import (
	"encoding/json"
	"fmt"
	"time"
)

// Entry is one change that can be proposed. Entries carry every time and
// identifier they need: applying one reads no clock and draws no number.
type Entry interface {
	// kind names the entry in the log. A kind, once released, keeps its
	// meaning for ever: another meaning is another kind.
	kind() string
	// apply changes the content or refuses and changes nothing.
	apply(c *content, index uint64) error
}

// PutMember adds a member or changes its name, address and roles. A new member
// is Online.
type PutMember struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Address string    `json:"address,omitempty"`
	Roles   []string  `json:"roles,omitempty"`
	Pending bool      `json:"pending,omitempty"`
	At      time.Time `json:"at"`
}

// RemoveMember forgets a member, with its leases and locks; its running
// operations become Failure.
type RemoveMember struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// SetVerdict gives a verdict about a member. Offline turns the member's running
// operations into Failure and releases its locks. The verdict is refused
// (ErrConflict) unless Epoch is the member's present epoch.
type SetVerdict struct {
	ID      string    `json:"id"`
	Verdict Verdict   `json:"verdict"`
	Epoch   uint64    `json:"epoch"`
	At      time.Time `json:"at"`
}

// AcquireLease gives the lease to Holder, or renews it when Holder has it. It is
// refused (ErrConflict) while another member has it.
type AcquireLease struct {
	Name   string        `json:"name"`
	Holder string        `json:"holder"`
	TTL    time.Duration `json:"ttl"`
}

// ReleaseLease gives the lease back. Releasing what one does not hold changes
// nothing.
type ReleaseLease struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
}

// ExpireLease ends a lease that has not been renewed since Renewed. A newer
// renewal makes it change nothing.
type ExpireLease struct {
	Name    string `json:"name"`
	Renewed uint64 `json:"renewed"`
}

// AcquireLock takes a cluster-wide lock. It is refused (ErrConflict) while
// somebody else holds it, and changes nothing when Holder has it already.
type AcquireLock struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	Reason string `json:"reason,omitempty"`
}

// ReleaseLock gives a lock back. Releasing what one does not hold changes
// nothing.
type ReleaseLock struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
}

// StartOperation enters an operation into the registry, Running. Proposing it
// again under the same ID changes nothing.
type StartOperation struct {
	Operation Operation `json:"operation"`
}

// FinishOperation gives an operation its final status. It is refused with
// ErrNotFound when the operation is unknown, and with ErrConflict when it has
// another final status already.
type FinishOperation struct {
	ID     string     `json:"id"`
	Status StatusCode `json:"status"`
	Err    string     `json:"err,omitempty"`
	// Metadata replaces the operation's when not nil.
	Metadata json.RawMessage `json:"metadata,omitempty"`
	At       time.Time       `json:"at"`
}

// UpdateOperation replaces the metadata of a running operation for every
// member to see. Progress does not belong here: it stays with the owner.
type UpdateOperation struct {
	ID       string          `json:"id"`
	Metadata json.RawMessage `json:"metadata"`
	At       time.Time       `json:"at"`
}

// trimOperations forgets the operations that ended at UpTo or before.
type trimOperations struct {
	UpTo uint64 `json:"up_to"`
}

// memberRestarted ends what the member's daemon was doing when it stopped. The entry
// may come late, when the daemon works again already: what it has begun in this life,
// named by Boot, goes on. Life says that Boot is to be remembered as the member's life. An
// older release does not, and does with the entry what it always did: so this is no kind
// of its own, which it could not read.
type memberRestarted struct {
	Member string    `json:"member"`
	Boot   string    `json:"boot,omitempty"`
	Life   bool      `json:"life,omitempty"`
	At     time.Time `json:"at"`
}

// coordinatorElected records who coordinates under which term.
type coordinatorElected struct {
	Member string `json:"member"`
	Term   uint64 `json:"term"`
}

// barrier changes nothing; whoever has applied it has applied all before it.
type barrier struct {
	// News are told to those who subscribed to them. They travel with a barrier because
	// releases that don't know of them can follow the log all the same.
	News []News `json:"news,omitempty"`
}

// Tell is the entry that tells every member what happened on one of them.
func Tell(news []News) Entry { return barrier{News: news} }

func (PutMember) kind() string          { return "put_member" }
func (RemoveMember) kind() string       { return "remove_member" }
func (SetVerdict) kind() string         { return "set_verdict" }
func (AcquireLease) kind() string       { return "acquire_lease" }
func (ReleaseLease) kind() string       { return "release_lease" }
func (ExpireLease) kind() string        { return "expire_lease" }
func (AcquireLock) kind() string        { return "acquire_lock" }
func (ReleaseLock) kind() string        { return "release_lock" }
func (StartOperation) kind() string     { return "start_operation" }
func (FinishOperation) kind() string    { return "finish_operation" }
func (UpdateOperation) kind() string    { return "update_operation" }
func (trimOperations) kind() string     { return "trim_operations" }
func (memberRestarted) kind() string    { return "member_restarted" }
func (coordinatorElected) kind() string { return "coordinator_elected" }
func (barrier) kind() string            { return "barrier" }

// kinds makes an empty entry of each kind.
var kinds = map[string]func() Entry{
	"put_member":          empty[PutMember],
	"remove_member":       empty[RemoveMember],
	"set_verdict":         empty[SetVerdict],
	"acquire_lease":       empty[AcquireLease],
	"release_lease":       empty[ReleaseLease],
	"expire_lease":        empty[ExpireLease],
	"acquire_lock":        empty[AcquireLock],
	"release_lock":        empty[ReleaseLock],
	"start_operation":     empty[StartOperation],
	"finish_operation":    empty[FinishOperation],
	"update_operation":    empty[UpdateOperation],
	"trim_operations":     empty[trimOperations],
	"member_restarted":    empty[memberRestarted],
	"coordinator_elected": empty[coordinatorElected],
	"barrier":             empty[barrier],
}

func empty[E any, P interface {
	*E
	Entry
}]() Entry {
	return P(new(E))
}

// envelope is an entry as it stands in the log.
type envelope struct {
	Kind  string          `json:"kind"`
	Entry json.RawMessage `json:"entry"`
}

func encodeEntry(entry Entry) ([]byte, error) {
	body, err := json.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode an entry of kind %s: %w", entry.kind(), err)
	}
	return json.Marshal(envelope{entry.kind(), body})
}

// decodeEntry reads an entry. Its errors mean that this release cannot follow
// the log.
func decodeEntry(data []byte) (Entry, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("the entry cannot be read: %w", err)
	}
	makeEntry, known := kinds[e.Kind]
	if !known {
		return nil, fmt.Errorf("this release does not know entries of kind %q: upgrade this member", e.Kind)
	}
	entry := makeEntry()
	if err := json.Unmarshal(e.Entry, entry); err != nil {
		return nil, fmt.Errorf("the entry of kind %s cannot be read: %w", e.Kind, err)
	}
	return entry, nil
}
