package gossip

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It holds locks of its own while it does, so
// nothing here may call memberlist or wait.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(int) []byte { return *d.g.meta.Load() }

func (d delegate) NotifyMsg(data []byte) {
	now := time.Now()
	switch {
	case len(data) > 1 && data[1] == kindLoad:
		r, err := decodeLoad(data, now)
		if err != nil {
			d.g.dropped.Add(1)
		} else if d.g.table.heard(r, now) {
			d.g.cast("load/"+r.id, encodeLoad(r, now))
		}
	case len(data) > 1 && data[1] == kindNotice:
		what, id, seq, err := decodeNotice(data)
		if err != nil {
			d.g.dropped.Add(1)
			return
		}
		d.g.notice(what, id, seq, now)
	default:
		d.g.dropped.Add(1)
	}
}

func (g *Gossip) notice(what uint64, id string, seq uint64, now time.Time) {
	switch {
	case what == noticeDoubt && id == g.id:
		select {
		case g.refute <- struct{}{}:
		default:
		}
	case what == noticeDoubt && g.table.doubt(id, seq, now):
		g.cast("doubt/"+id, encodeNotice(what, id, seq))
	case what == noticeLeave && g.table.gone(id, seq, now):
		g.cast("leave/"+id, encodeNotice(what, id, seq))
	}
}

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.queue.GetBroadcasts(overhead, limit)
}

func (d delegate) LocalState(bool) []byte { return encodeState(d.g.table.records(), time.Now()) }

func (d delegate) MergeRemoteState(data []byte, _ bool) {
	now := time.Now()
	records, err := decodeState(data, now)
	if err != nil {
		d.g.dropped.Add(1)
	}
	for _, r := range records {
		d.g.table.heard(r, now)
	}
}

func (d delegate) NotifyJoin(n *memberlist.Node) { d.g.see(n, Alive) }

func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.see(n, "") }

func (d delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.g.id {
		d.g.see(n, Left)
		return
	}
	d.g.see(n, Dead)
}

// NotifyConflict hears that somebody holds another address of a member. When it
// is this one, it came back elsewhere and must speak until all know.
func (d delegate) NotifyConflict(existing, _ *memberlist.Node) {
	if existing.Name == d.g.id {
		d.g.moved.Store(time.Now().UnixNano())
	}
}

// see records a node; an empty status leaves it as it is.
func (g *Gossip) see(n *memberlist.Node, status Status) {
	var meta Meta
	if err := json.Unmarshal(n.Meta, &meta); err != nil {
		g.dropped.Add(1)
	}
	g.table.seen(Member{ID: n.Name, Address: n.Address(), Meta: meta, Status: status, Since: time.Now()})
}

// cast queues a message for the others; it takes the place of an older one of
// the same name.
func (g *Gossip) cast(name string, data []byte) {
	g.queue.QueueBroadcast(broadcast{name, data})
}

type broadcast struct {
	name string
	data []byte
}

func (b broadcast) Name() string { return b.name }

func (b broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(broadcast)
	return ok && o.name == b.name
}

func (b broadcast) Message() []byte { return b.data }

func (broadcast) Finished() {}

// listener reads memberlist's log: it is the only place where memberlist v0.7.0
// says that it suspects somebody (a test holds it to that).
type listener struct{ g *Gossip }

func (l listener) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	l.g.log.Debug("memberlist", "text", text)
	if _, after, found := strings.Cut(text, "memberlist: Suspect "); found {
		if id, _, found := strings.Cut(after, " has failed"); found {
			seq := l.g.table.seq(id)
			if l.g.table.doubt(id, seq, time.Now()) {
				l.g.cast("doubt/"+id, encodeNotice(noticeDoubt, id, seq))
			}
		}
	}
	return len(line), nil
}
