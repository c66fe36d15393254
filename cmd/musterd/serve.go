package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/node"
	"muster/node/image"
	"muster/node/network"
	"muster/node/runtime"
	"muster/node/runtime/lxc"
	"muster/node/runtime/sim"
	"muster/rpc/mux"
	"muster/rpc/peer"
	"muster/rpc/rest"
	"muster/state"
	"muster/state/store"
)

type serveOptions struct {
	dir            string
	group          string
	logfile        string
	debug, verbose bool
	// witness says that this member votes and hosts nothing.
	witness bool
}

// member is everything of one running daemon.
type member struct {
	dir      string
	witness  bool
	log      *slog.Logger
	identity *pki.Identity
	mux      *mux.Mux
	coord    *coord.Node
	store    *store.Store
	book     *book
	peers    *peer.Peers
	planes   planes
	raft     desk
	began    time.Time
	events   *cluster.Events
	ops      *cluster.Operations
	runtime  runtime.Runtime
	node     *node.Node
	cluster  *cluster.Cluster
	rest     *rest.Server
	driver   runtime.Driver

	// socket opens the local socket, or returns it when it is open.
	socket func() (net.Listener, error)

	// background counts what answers other members, from open to close;
	// stopBackground ends it.
	background     sync.WaitGroup
	stopBackground context.CancelFunc

	ready atomic.Bool
	// inOrder is closed when what the daemon before left has been brought in order.
	inOrder chan struct{}
	// left says that this member was removed from its cluster.
	left atomic.Bool
	// anew says that the daemon is to begin anew: it has joined a cluster, or left one.
	anew atomic.Bool
	// stopping says that the daemon was told to end, which goes before beginning anew.
	stopping atomic.Bool
	// ended is closed when somebody asks the daemon to end.
	ended   chan struct{}
	endOnce sync.Once

	closeOnce sync.Once

	// replies are the answers to those who asked this server to join a cluster.
	replies *joinReplies
}

// serve runs the daemon until ctx ends or it is told to shut down.
func serve(ctx context.Context, options serveOptions) error {
	log, closeLog, err := openLog(options)
	if err != nil {
		return err
	}
	defer closeLog()
	group, err := groupID(options.group)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 && !options.witness {
		return errors.New("musterd makes containers, mounts and networks: run it as root (\"sudo musterd\"); only a witness (--witness) runs as another user")
	}
	if err := os.MkdirAll(options.dir, 0o711); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as root, or set MUSTER_DIR to a directory of your own", err)
	} else if err != nil {
		return err
	}
	dir, err := filepath.Abs(options.dir)
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return err
	}
	defer unlock()

	var local net.Listener
	defer func() {
		if local != nil {
			_ = local.Close()
		}
	}()
	replies := &joinReplies{}
	defer replies.end(rest.JoinEnd{Err: state.Errorf(state.ErrUnavailable, "the daemon ended while this server joined a cluster; it goes on when it is started again")})
	for {
		again, err := serveOnce(ctx, dir, log, group, options.witness, &local, replies)
		if err != nil || !again {
			return err
		}
		log.Info("this server has joined a cluster or left one, and begins anew")
	}
}

// serveOnce is one life of the daemon; again says that it is to begin another.
func serveOnce(ctx context.Context, dir string, log *slog.Logger, group int, witness bool, local *net.Listener, replies *joinReplies) (again bool, err error) {
	if err := errors.Join(finishLeaving(dir), finishJoining(dir)); err != nil {
		return false, err
	}
	// Not at once: who finds the socket finds a daemon behind it.
	socket := func() (net.Listener, error) {
		if *local == nil {
			if *local, err = localListener(dir, group); err != nil {
				return nil, err
			}
		}
		return *local, nil
	}
	m := &member{dir: dir, witness: witness, replies: replies, began: time.Now(), ended: make(chan struct{}), inOrder: make(chan struct{}), socket: socket}
	defer m.close(ctx)
	err = m.open(ctx, log, group)
	if errors.Is(err, errEnded) {
		return false, nil
	}
	if errors.Is(err, errRemoved) && m.book.joining() {
		log.Warn("the cluster took the join back: this server is one of its own again")
		m.close(ctx)
		return true, m.forgetJoin()
	}
	if errors.Is(err, errRemoved) {
		log.Error("the member does not start", "error", err)
		m.close(ctx)
		if _, err := socket(); err != nil {
			return false, err
		}
		return false, mourn(ctx, dir, *local, log)
	}
	if err != nil {
		return false, err
	}
	if _, err := socket(); err != nil {
		return false, err
	}
	lending := &lent{Listener: *local}
	if err := lending.open(); err != nil {
		return false, err
	}
	err = m.run(ctx, lending)
	return m.anew.Load() && !m.stopping.Load() && ctx.Err() == nil, err
}

// lent is a listener that outlives its user: closing it only ends Accept.
type lent struct {
	net.Listener
}

// timed is a listener whose Accept can be interrupted.
type timed interface{ SetDeadline(at time.Time) error }

// open takes back what Close did.
func (l *lent) open() error {
	if t, ok := l.Listener.(timed); ok {
		return t.SetDeadline(time.Time{})
	}
	return nil
}

// Accept implements net.Listener.
func (l *lent) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed
	}
	return conn, err
}

// Close implements net.Listener.
func (l *lent) Close() error {
	if t, ok := l.Listener.(timed); ok {
		return t.SetDeadline(time.Unix(1, 0))
	}
	return l.Listener.Close()
}

// openLog makes the log: warnings and worse unless asked for more.
func openLog(options serveOptions) (*slog.Logger, func(), error) {
	level := slog.LevelWarn
	if options.verbose {
		level = slog.LevelInfo
	}
	if options.debug {
		level = slog.LevelDebug
	}
	var out io.Writer = os.Stderr
	closeLog := func() {}
	if options.logfile != "" {
		file, err := os.OpenFile(options.logfile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("open the log file: %w", err)
		}
		out, closeLog = io.MultiWriter(os.Stderr, file), func() { _ = file.Close() }
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), closeLog, nil
}

func groupID(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	found, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("--group %s: there is no such group: create it with \"groupadd --system %s\"", name, name)
	}
	return strconv.Atoi(found.Gid)
}

// withoutLXCFS is what to say on a machine where lxcfs does not run.
const withoutLXCFS = "lxcfs does not run on this machine: containers see its memory, processors and uptime instead of their own (in free and top); install Debian's package lxcfs, start it, and start the containers again"

// lockPatience is how long the directory may stay locked: a daemon that was killed while
// it started a helper leaves the lock to it for as long as that takes to become one.
const lockPatience = 2 * time.Second

// lockDirectory keeps a second daemon out of the directory.
func lockDirectory(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for patience := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if time.Now().After(patience) {
			_ = file.Close()
			return nil, fmt.Errorf("another daemon uses %s: set MUSTER_DIR to run a second one beside it", dir)
		}
	}
	return func() { _ = file.Close() }, nil
}

// lockedDirectory reports whether a daemon uses the directory now.
func lockedDirectory(dir string) bool {
	file, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// open builds the member from the bottom up.
func (m *member) open(ctx context.Context, log *slog.Logger, group int) error {
	var err error
	if m.identity, err = pki.Open(m.dir, pki.Options{Hosts: ownHosts()}); err != nil {
		return err
	}
	id := m.identity.MemberID()
	m.events = cluster.NewEvents(cluster.EventsConfig{Location: m.location})
	m.log = slog.New(m.events.LogHandler(log.Handler()))
	if m.book, err = openBook(m.dir); err != nil {
		return err
	}
	joined, others := m.book.joined(), m.book.others(id) > 0
	if err := errors.Join(refuseHalfRecovered(m.dir, m.book), refuseGone(m.dir, joined)); err != nil {
		return err
	}
	if others {
		// Before the logs are opened: two that were given up must not go on together.
		if err := m.askMembership(ctx, time.Second); err != nil {
			return err
		}
	}
	if m.mux, err = mux.New(mux.Config{Identity: m.identity, Admit: m.admit, Log: m.log}); err != nil {
		return err
	}
	m.peers = peer.New(m.peerConfig())
	answering, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopBackground = stop
	m.answerPeers(answering)
	if self, known := m.book.find(id); known {
		// The others' logs need this one's answers before it can be up to date.
		if err := m.mux.SetAddress(ctx, self.Address); err != nil {
			return fmt.Errorf("listen where the other members look for this one (if it has another address now: \"musterd cluster set-address ADDRESS\"): %w", err)
		}
	}
	m.coord, err = coord.Open(ctx, coord.Config{
		Dir: filepath.Join(m.dir, "raft"), ID: id, Bootstrap: !joined, Patient: others, Worker: joined, Streams: streams{m}, Forward: m.peers,
		Follow: m.peers, Sources: m.controllers, Log: m.log,
		Reserve: coordReserve, Voters: m.fitVoters, Freeze: m.freezeWriters, Thaw: m.thawWriters,
	})
	if err != nil {
		return err
	}
	m.planes.coord.Store(m.coord)
	host, err := os.Hostname()
	if err != nil || state.ValidateMemberName(host) != nil {
		host = "member1"
	}
	m.store, err = store.Open(ctx, store.Config{
		Dir: filepath.Join(m.dir, "database"), Log: m.log,
		Member: state.Member{ID: id, Name: host, CreatedAt: time.Now().UTC()},
		Worker: joined, Patient: others, Remote: m.peers, Others: m.controllers,
		Reserve: databaseReserve, Voters: m.fitVoters, Freeze: m.freezeWriters, Thaw: m.thawWriters,
		Dial: func(ctx context.Context, id string) (net.Conn, error) { return m.dial(ctx, id, mux.Dqlite) },
	})
	if err != nil {
		return err
	}
	m.planes.store.Store(m.store)
	if err := os.Remove(filepath.Join(m.dir, forgetFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.ops, err = cluster.NewOperations(cluster.OperationsConfig{
		Coord: m.coord, Member: id, Events: m.events, Log: m.log,
		Location: m.locationOf,
		Entitled: func(requestor *state.Requestor, project string) bool {
			return cluster.Entitled(m.store.View(), requestor, project)
		},
	})
	if err != nil {
		return err
	}
	if err := m.openNode(ctx); err != nil {
		return err
	}
	if joined || others {
		if err := m.awaitMembership(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(m.recordLost(ctx), m.recordMove(ctx)); err != nil {
		return err
	}
	m.cluster, err = cluster.New(cluster.Config{
		Store: m.store, Operations: m.ops, Node: m.node, MemberID: id, Events: m.events, Log: m.log,
		Coord: m.coord, Identity: m.identity, Address: m.mux.Address, Reach: reach, Pinger: m.peers, Remote: remote{m}, Remember: m.remember, Left: m.left.Load,
		Virtual: &virtual{m: m}, Joined: m.book.join,
		Listen: m.mux.SetAddress, Cut: func(whose func(string) bool) { m.mux.CutClients(whose) },
	})
	if err != nil {
		return err
	}
	m.planes.cluster.Store(m.cluster)
	if m.rest, err = rest.New(m.restConfig(group)); err != nil {
		return err
	}
	m.planes.rest.Store(m.rest)
	return nil
}

// How much room is kept for each log when the disk is full: for a few segments, and for
// what deleting writes.
const (
	coordReserve    = 12 << 20
	databaseReserve = 48 << 20
)

// fitVoters counts the other voters whose logs can be written, those whose logs can't be,
// and all voters. Until it is known who they are, this member takes itself for the only one.
func (m *member) fitVoters() (fit, sick, all int) {
	if c := m.planes.cluster.Load(); c != nil {
		return c.Voters()
	}
	return 0, 0, 1
}

// freezeWriters freezes instances that would use up the room that is given up, and
// thawWriters lets them go on.
func (m *member) freezeWriters(ctx context.Context) {
	if c := m.planes.cluster.Load(); c != nil {
		c.FreezeWriters(ctx)
	}
}

func (m *member) thawWriters(ctx context.Context) {
	if c := m.planes.cluster.Load(); c != nil {
		c.ThawWriters(ctx)
	}
}

// location is this member's name as clients know it.
func (m *member) location() string {
	if m.cluster == nil || !m.cluster.Clustered() {
		return "none"
	}
	return m.cluster.Self()
}

// locationOf is the name of the member with that ID, for operations.
func (m *member) locationOf(id string) string {
	if m.cluster == nil || !m.cluster.Clustered() {
		return "none"
	}
	found, err := m.store.View().MemberByID(id)
	if err != nil {
		return "" // removed since
	}
	return found.Name
}

func (m *member) openNode(ctx context.Context) error {
	if err := m.openRuntime(ctx); err != nil {
		return err
	}
	images, err := image.Open(image.Config{Dir: filepath.Join(m.dir, "images"), Log: m.log})
	if err != nil {
		return err
	}
	networks, err := network.New(network.Config{Dir: filepath.Join(m.dir, "networks"), Log: m.log})
	if err != nil {
		return err
	}
	ids, err := runtime.DetectIDMap()
	if err != nil {
		return err
	}
	m.node, err = node.New(node.Config{
		Dir: m.dir, Runtime: m.runtime, Images: images, Networks: networks, IDMap: ids, Log: m.log,
	})
	return errors.Join(err, ctx.Err())
}

// ownHosts are the names by which clients may reach a server that starts for the first
// time: its name, and the addresses that it has then.
func ownHosts() []string {
	var hosts []string
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	addresses, _ := net.InterfaceAddrs() // without them clients go by the fingerprint, as most do
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			hosts = append(hosts, network.IP.String())
		}
	}
	return hosts
}

// openRuntime opens what runs containers. A witness runs none, and needs neither liblxc
// nor what comes with it: it has a runtime that only keeps books, which stay empty.
func (m *member) openRuntime(ctx context.Context) error {
	if m.witness {
		m.runtime, m.driver = sim.New(sim.Config{}), runtime.Driver{Name: "none"}
		return nil
	}
	shim, err := program("muster-shim")
	if err != nil {
		return err
	}
	if !lxc.HasLXCFS() {
		m.log.Warn(withoutLXCFS)
	}
	containers, err := lxc.Open(ctx, lxc.Config{Dir: filepath.Join(m.dir, "containers"), Shim: shim, Log: m.log})
	if err != nil {
		return err
	}
	m.runtime, m.driver = containers, containers.Driver()
	return nil
}

// program finds one of our programs beside this one, or in PATH.
func program(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(candidate); err == nil && info.Mode().Perm()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s is neither beside musterd nor in PATH: \"make build\" puts both into bin/", name)
}

// localListener opens the local socket, or takes it over from systemd.
func localListener(dir string, group int) (net.Listener, error) {
	inherited, err := activation.Listeners()
	if err == nil && len(inherited) > 0 && inherited[0] != nil {
		return inherited[0], nil
	}
	path := filepath.Join(dir, "unix.socket")
	// The directory is locked, so a socket that is there is a dead daemon's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, 0, group)); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// run serves until the daemon is to end.
func (m *member) run(parent context.Context, local net.Listener) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	power := make(chan os.Signal, 1)
	signal.Notify(power, unix.SIGPWR)
	defer signal.Stop(power)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.rest.Serve(ctx, local) })
	err := m.cluster.SetWitness(ctx, m.witness)
	if err == nil {
		err = m.cluster.Reconcile(ctx)
	}
	if err != nil {
		cancel()
		return errors.Join(err, ignoreCancel(group.Wait()))
	}
	close(m.inOrder)
	stopFollowing := m.events.Follow(m.coord.Replica(), m.ops.View, m.locationOf)
	defer stopFollowing()
	if err := m.cluster.Listen(ctx); err != nil {
		m.log.Error("listen on core.https_address: the API is served on the local socket only", "error", err)
	}
	group.Go(func() error { return m.rest.Serve(ctx, m.mux.REST()) })
	group.Go(func() error { return m.cluster.Run(ctx) })
	group.Go(func() error { return m.keepBook(ctx) })
	group.Go(func() error { return m.endJoin(ctx) })
	group.Go(func() error { return m.hangUp(ctx) })
	group.Go(func() error { return m.keepGossip(ctx) })
	group.Go(func() error {
		select {
		case err := <-m.store.Broken():
			return err
		case err := <-m.coord.Replaced():
			return err
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error {
		m.cluster.AutoStart(ctx)
		m.cluster.AwaitVerdict(ctx)
		m.ready.Store(true)
		return nil
	})
	group.Go(func() error {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-m.ended:
		case <-power:
			m.stopping.Store(true)
			m.log.Warn("the power fails: stopping all instances")
			if err := m.cluster.StopAll(ctx); err != nil {
				m.log.Error("stop all instances", "error", err)
			}
		}
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		return nil
	})
	if err := os.WriteFile(filepath.Join(m.dir, neededFile), nil, 0o600); err != nil {
		m.log.Warn("note that the daemon is needed", "error", err)
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		m.log.Warn("tell the service manager", "error", err)
	}
	m.log.Info("ready", "dir", m.dir, "version", version)
	return ignoreCancel(group.Wait())
}

func ignoreCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// close ends everything from the top down. Containers go on. It may be called twice.
func (m *member) close(ctx context.Context) {
	m.closeOnce.Do(func() { m.closeRooms(ctx) })
}

func (m *member) closeRooms(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if m.left.Load() {
		m.closeLogs() // nobody listens to this member any more
	} else {
		m.handOver(ctx)
		m.noteNeed()
	}
	var failed []error
	m.endBackground()
	if m.ops != nil {
		failed = append(failed, m.ops.Close(ctx))
	}
	if m.node != nil {
		m.node.ClosePools(ctx)
	}
	if m.runtime != nil {
		failed = append(failed, m.runtime.Close())
	}
	if m.store != nil {
		failed = append(failed, m.closeStore())
	}
	if m.coord != nil {
		failed = append(failed, m.coord.Close())
	}
	if m.peers != nil {
		failed = append(failed, m.peers.Close())
	}
	if m.mux != nil {
		failed = append(failed, m.mux.Close())
	}
	if m.events != nil {
		m.events.Close()
	}
	if err := errors.Join(failed...); err != nil && m.log != nil {
		m.log.Error("end the daemon", "error", err)
	}
}

// backgroundGrace is how long what runs in the background may take to record its end.
// Without a quorum it can't, and does so after the next start: its intents stay.
const backgroundGrace = 3 * time.Second

func (m *member) endBackground() {
	if m.stopBackground == nil {
		return
	}
	m.stopBackground()
	late := time.AfterFunc(backgroundGrace, m.closeLogs)
	defer late.Stop()
	m.background.Wait()
}

// closeStore closes the state plane; a process that ends with it leaves its node alone.
func (m *member) closeStore() error {
	if m.anew.Load() && !m.stopping.Load() {
		return m.store.Close()
	}
	return m.store.Abandon()
}

// closeLogs gives up on whoever waits for either log.
func (m *member) closeLogs() {
	var failed []error
	if m.store != nil {
		failed = append(failed, m.closeStore())
	}
	if m.coord != nil {
		failed = append(failed, m.coord.Close())
	}
	if err := errors.Join(failed...); err != nil {
		m.log.Warn("close the logs", "error", err)
	}
}

// handOver lets others lead before this member goes, so that nobody waits for an
// election. What can't be handed over in a moment is elected.
func (m *member) handOver(ctx context.Context) {
	if m.cluster == nil || m.book.others(m.identity.MemberID()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := errors.Join(m.store.HandOver(ctx), m.coord.HandOver(ctx)); err != nil {
		m.log.Info("the others elect who leads", "error", err)
	}
}

// neededFile is there while the daemon runs, and stays when it is to be started again
// at boot: after a crash, or when noteNeed left it.
const neededFile = "needed"

// noteNeed removes neededFile when nobody would miss the daemon until a client calls.
func (m *member) noteNeed() {
	if m.cluster == nil || m.cluster.Needed() {
		return
	}
	if err := os.Remove(filepath.Join(m.dir, neededFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.log.Warn("note that the daemon is not needed", "error", err)
	}
}

// Ready implements rest.Daemon.
func (m *member) Ready() bool { return m.ready.Load() }

// Shutdown implements rest.Daemon.
func (m *member) Shutdown(ctx context.Context, stopInstances bool) error {
	if stopInstances {
		if err := m.cluster.StopAll(ctx); err != nil {
			return err
		}
	}
	m.cluster.GiveUpVote(ctx)
	m.stopping.Store(true)
	m.end()
	return nil
}

// end makes run return.
func (m *member) end() { m.endOnce.Do(func() { close(m.ended) }) }

// Database implements rest.Daemon.
func (m *member) Database(ctx context.Context) (rest.InternalDatabase, error) {
	found := parts{self: m.identity.MemberID(), revision: m.store.View().Revision()}
	part, err := m.store.Part(ctx)
	if err != nil {
		return rest.InternalDatabase{}, err
	}
	if part == state.PartUsed {
		if found.database, err = m.store.Roles(ctx); err != nil {
			return rest.InternalDatabase{}, err
		}
	}
	if m.coord.Part() == state.PartUsed {
		seats, err := m.coord.Seats()
		if err != nil {
			return rest.InternalDatabase{}, err
		}
		found.coord = cluster.SeatRoles(seats)
	}
	found.heard = map[string]store.Role{}
	for _, known := range m.coord.Members() {
		found.heard[known.ID] = cluster.RoleOf(known)
	}
	shown := found.describe(m.book)
	shown.Schema = m.store.View().Schema()
	return shown, nil
}

// Query implements rest.Daemon.
func (m *member) Query(ctx context.Context, statement string, write bool) (*store.Table, error) {
	return m.store.Query(ctx, statement, nil, write)
}
