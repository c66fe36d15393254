package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/canonical/go-dqlite"
	"github.com/canonical/go-dqlite/client"
	"github.com/canonical/go-dqlite/driver"
	"golang.org/x/sys/unix"

	"muster/state"
)

// databaseName is the name of the one database that the node replicates.
const databaseName = "state"

// Snapshots of the log: one each snapshotThreshold entries, keeping
// snapshotTrailing entries, which must be at least as many, for members that are a
// little behind. The log is kept in memory too, at some 30 kB an entry, and the node
// replays what came after the newest snapshot when it starts, at some 0.7 ms an
// entry; but a snapshot holds the whole database, and writes wait for it (50 ms with
// 10,000 instances). Measured: a threshold of 512 instead costs 6 MB more, one of 64
// makes one write in a hundred take 34 ms instead of 8.
const (
	snapshotThreshold = 256
	snapshotTrailing  = 256
)

// node is this member's part of the consensus on the database. Its address in
// the log is the member's ID.
type node struct {
	address string
	// socket is where the node listens.
	socket string
	dqlite *dqlite.Node
	dial   func(context.Context, string) (net.Conn, error)
	log    *slog.Logger
	// informant is for questions that are asked all the time.
	informant informant

	// pipes carry connections between the network and the node's socket.
	pipes  sync.WaitGroup
	mu     sync.Mutex
	closed bool
	ends   map[net.Conn]struct{}
}

// making is held while a node is made: libdqlite 1.11 counts the file systems it
// registers in a variable that nothing guards, and two nodes made at once in one
// process would share one, and so their databases.
var making sync.Mutex

// errLog means that the node does not start on the log it finds.
var errLog = errors.New("the log cannot be read")

// startNode starts the dqlite node. With an empty directory and the number that is
// for the first node, it begins a cluster.
func startNode(cfg Config, number uint64) (*node, error) {
	n := &node{address: cfg.Member.ID, dial: cfg.Dial, log: cfg.Log, informant: newInformant(), ends: map[net.Conn]struct{}{}}
	latency := cfg.NetworkLatency
	if latency == 0 {
		latency = 10 * time.Millisecond
	}
	making.Lock()
	engine, err := dqlite.New(number, n.address, cfg.Dir,
		// An abstract socket with a name of the kernel's choice: no two nodes
		// collide. The node refuses connections of other processes itself.
		dqlite.WithBindAddress("@"),
		dqlite.WithDialFunc(n.dialNode),
		dqlite.WithNetworkLatency(latency),
		dqlite.WithSnapshotParams(dqlite.SnapshotParams{Threshold: snapshotThreshold, Trailing: snapshotTrailing}),
	)
	making.Unlock()
	if err != nil {
		return nil, err
	}
	n.dqlite = engine
	if err := engine.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errLog, err)
	}
	// Not to be asked for later: the node may be gone by then.
	n.socket = engine.BindAddress()
	return n, nil
}

// cut ends the node's connections to other members for good.
func (n *node) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for end := range n.ends {
		_ = end.Close()
	}
}

// close stops the node and waits for its connections.
func (n *node) close() error {
	n.cut()
	n.informant.close()
	err := n.dqlite.Close()
	n.pipes.Wait()
	return err
}

// dialLocal connects to the node's own socket.
func (n *node) dialLocal(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
}

// dialSelf is what SQL connections use: commands run on the leader, so SQL never
// leaves the member.
func (n *node) dialSelf(ctx context.Context, address string) (net.Conn, error) {
	if address != n.address {
		return nil, fmt.Errorf("sql for member %s stays there", address)
	}
	return n.dialLocal(ctx)
}

// dialNode is what the node uses to reach another one. The node wants a file
// descriptor of its own, which a TLS connection is not, so it gets one end of a
// pair of sockets and a pipe carries the other end's bytes.
func (n *node) dialNode(ctx context.Context, address string) (net.Conn, error) {
	if address == n.address {
		return n.dialLocal(ctx)
	}
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if n.dial == nil || closed {
		return nil, fmt.Errorf("no way to reach member %s", address)
	}
	remote, err := n.dial(ctx, address)
	if err != nil {
		n.log.DebugContext(ctx, "member not reached", "member_id", address, "error", err)
		return nil, err
	}
	local, engine, err := socketPair()
	if err != nil {
		return nil, errors.Join(err, remote.Close())
	}
	n.pipe(remote, local)
	return engine, nil
}

// accept carries a connection of another member to the node's socket.
func (n *node) accept(remote net.Conn) {
	local, err := net.DialTimeout("unix", n.socket, 5*time.Second)
	if err != nil {
		_ = remote.Close()
		return
	}
	n.pipe(remote, local)
}

// pipe copies between two connections until either ends, and then closes both.
func (n *node) pipe(a, b net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_, _ = a.Close(), b.Close()
		return
	}
	n.ends[a], n.ends[b] = struct{}{}, struct{}{}
	carry := func(to, from net.Conn) {
		// How a connection ends is the business of those who talk over it.
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.ends, to)
		delete(n.ends, from)
	}
	n.pipes.Go(func() { carry(a, b) })
	n.pipes.Go(func() { carry(b, a) })
}

// socketPair returns two connected sockets.
func socketPair() (one, other net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "dqlite")
		conns[i], err = net.FileConn(file)
		err = errors.Join(err, file.Close())
		if err != nil {
			if i == 0 {
				_ = unix.Close(fds[1])
			} else {
				_ = conns[0].Close()
			}
			return nil, nil, err
		}
	}
	return conns[0], conns[1], nil
}

// leader returns the member ID of the leader that the node knows of, or "".
func (n *node) leader(ctx context.Context) (id string, err error) {
	err = n.consult(ctx, func(c *client.Client) error {
		leader, err := c.Leader(ctx)
		if leader != nil {
			id = leader.Address
		}
		return err
	})
	return id, err
}

// voters returns the member IDs of those that vote, as the node knows.
func (n *node) voters(ctx context.Context) (ids []string, err error) {
	err = n.consult(ctx, func(c *client.Client) error {
		nodes, err := c.Cluster(ctx)
		for _, other := range nodes {
			if other.Role == client.Voter {
				ids = append(ids, other.Address)
			}
		}
		return err
	})
	return ids, err
}

// alone reports whether this node is the only one that votes, so that no other
// can have become leader behind its back.
func (n *node) alone(ctx context.Context) (bool, error) {
	voters, err := n.voters(ctx)
	return err == nil && !slices.ContainsFunc(voters, func(id string) bool { return id != n.address }), err
}

// ask connects to the node for other questions than SQL.
func (n *node) ask(ctx context.Context, question func(*client.Client) error) error {
	// An answer is read with the deadline of ctx and without heed to its end, so that
	// ends the connection.
	stop := func() bool { return true }
	dial := func(dialling context.Context, address string) (net.Conn, error) {
		conn, err := n.dialSelf(dialling, address)
		if err == nil {
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	c, err := client.New(ctx, n.address, client.WithDialFunc(dial), client.WithLogFunc(n.logf))
	defer func() { stop() }()
	if err != nil {
		return err
	}
	return errors.Join(question(c), c.Close())
}

// database returns a handle on the database that makes connections to this node
// only, which succeed while it leads.
func (n *node) database(ctx context.Context) (*sql.DB, error) {
	self := client.NewInmemNodeStore()
	if err := self.Set(ctx, []client.NodeInfo{{Address: n.address}}); err != nil {
		return nil, err
	}
	d, err := driver.New(self, driver.WithDialFunc(n.dialSelf), driver.WithLogFunc(n.logf),
		driver.WithRetryLimit(1), driver.WithConnectionBackoffFactor(time.Millisecond))
	if err != nil {
		return nil, err
	}
	connector, err := d.OpenConnector(databaseName)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// logf takes the messages of go-dqlite.
func (n *node) logf(level client.LogLevel, format string, args ...any) {
	// Trouble of the driver comes back as an error too, so its own words are for
	// debugging.
	if level > client.LogDebug {
		n.log.Debug("dqlite", "level", level.String(), "says", fmt.Sprintf(format, args...))
	}
}

// isCode reports whether err is the database's refusal with one of the codes.
func isCode(err error, codes ...int) bool {
	refusal, ok := errors.AsType[driver.Error](err)
	return ok && slices.Contains(codes, refusal.Code)
}

// isBusy reports whether the database is held by a transaction that a lost
// connection left behind, for as long as the node has not noticed.
func isBusy(err error) bool {
	return isCode(err, driver.ErrBusy, driver.ErrBusyRecovery, driver.ErrBusySnapshot)
}

// The extended result codes that commands act on (sqlite3.h).
const (
	codeForeignKey = 787
	codePrimaryKey = 1555
	codeUnique     = 2067
)

// isRefusal reports whether err is an answer of the database, as opposed to a
// connection or a leadership that was lost.
func isRefusal(err error) bool {
	if state.Kind(err) != nil || errors.Is(err, sql.ErrNoRows) {
		return true
	}
	_, ok := errors.AsType[driver.Error](err)
	return ok
}
