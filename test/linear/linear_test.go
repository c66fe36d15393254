// Package linear records what concurrent clients on all members of a cluster see while
// members are killed, paused and cut off, and has porcupine look whether that can be
// explained by one copy of the state that everybody used in turn.
//
// That holds for each write, alone or guarded by an ETag that any member gave, and for
// each plain read through any member. The only reads that may be old are those that say
// so in their answer, and those that ask for it (?stale=1): of them it is asserted that a
// member never goes back, nor behind what it acknowledged.
package linear

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"muster/test/lab"
)

var seed = flag.Int64("seed", 0, "seed of the random choices; 0 takes a new one and prints it")

// span is how long the clients work: 20 s in `make test`, longer by
// MUSTER_LINEAR_SECONDS.
func span(t *testing.T) time.Duration {
	t.Helper()
	value := os.Getenv("MUSTER_LINEAR_SECONDS")
	if value == "" {
		return roundSpan
	}
	seconds, err := strconv.Atoi(value)
	if err != nil || seconds < 1 {
		t.Fatalf("MUSTER_LINEAR_SECONDS=%q: want a number above zero", value)
	}
	return time.Duration(seconds) * time.Second
}

const (
	// roundSpan is how long one history is. What nobody knows the outcome of stays
	// possible to its end, so long ones are hard to check.
	roundSpan = 20 * time.Second
	// clientsEach is how many clients each member has.
	clientsEach = 2
	// checkSpan is how long porcupine may take for one history.
	checkSpan = time.Minute
)

// TestHistoriesAreLinearizable is DESIGN.md's first promise.
func TestHistoriesAreLinearizable(t *testing.T) {
	lab.NeedsRoot(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: network})
	total := span(t)
	for began := time.Now(); time.Since(began) < total && !t.Failed(); {
		h := newHistory(t, members, registers(t, members[0], random.Int63()))
		h.record(random, min(roundSpan, total-time.Since(began)), network)
		h.check()
	}
}

// history is what the clients of one round did.
type history struct {
	t         *testing.T
	members   []*lab.Member
	registers []register
	began     time.Time
	values    atomic.Int64
	// floors are, for each member and register, the newest revision that a client
	// has seen there or had acknowledged.
	floors [][]atomic.Uint64

	mu         sync.Mutex
	operations []porcupine.Operation // guarded by mu
	faults     []string              // guarded by mu
	tally      map[string]int        // guarded by mu
}

func newHistory(t *testing.T, members []*lab.Member, registers []register) *history {
	h := &history{t: t, members: members, registers: registers, began: time.Now(), tally: map[string]int{}}
	for range members {
		h.floors = append(h.floors, make([]atomic.Uint64, len(registers)))
	}
	return h
}

// record has clients work for that long while faults come and go.
func (h *history) record(random *rand.Rand, span time.Duration, network *lab.Network) {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	defer stop()
	var clients sync.WaitGroup
	for i := range h.members {
		for range clientsEach {
			c := &client{h: h, member: i, number: i, random: rand.New(rand.NewSource(random.Int63()))}
			clients.Go(func() { c.work(ctx) })
		}
	}
	for deadline := time.Now().Add(span); time.Now().Before(deadline); {
		h.fault(random, network)
	}
	stop()
	clients.Wait()
	// What is left of every register, on every member: nothing that was acknowledged
	// may be missing, whether or not anybody happened to read it.
	for i := range h.members {
		c := &client{h: h, member: i, number: i, random: random}
		for r := range h.registers {
			c.look(h.t.Context(), i, r, "")
		}
	}
}

// fault hurts one member, so that the others are a majority, waits and heals it.
func (h *history) fault(random *rand.Rand, network *lab.Network) {
	h.t.Helper()
	index := random.Intn(len(h.members))
	victim, other := h.members[index], h.members[(index+1+random.Intn(2))%len(h.members)]
	faults := []struct {
		name       string
		hurt, heal func()
	}{
		{"kill", victim.Kill, victim.Up},
		{"pause", victim.Pause, victim.Resume},
		{"cut off", func() { network.Partition(victim) }, network.Heal},
		{"cut one way from one other", func() { network.Cut(victim, other) }, network.Heal},
		{"packets lost", func() { network.Lose(victim, 30) }, network.Heal},
		{"unplugged", func() { network.Unplug(victim) }, network.Heal},
	}
	chosen := faults[random.Intn(len(faults))]
	h.note("%s m%d", chosen.name, index+1)
	chosen.hurt()
	time.Sleep(time.Duration(300+random.Intn(2500)) * time.Millisecond)
	h.note("heal m%d", index+1)
	chosen.heal()
	time.Sleep(time.Duration(random.Intn(1500)) * time.Millisecond)
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf("%7.3f s ", time.Since(h.began).Seconds())+fmt.Sprintf(format, args...))
}

// check asks porcupine.
func (h *history) check() {
	h.t.Helper()
	h.t.Logf("%d operations, %v; faults:\n%s", len(h.operations), h.tally, strings.Join(h.faults, "\n"))
	result, info := linearizable(h.operations)
	switch result {
	case porcupine.Ok:
	case porcupine.Unknown:
		h.t.Logf("porcupine did not come to an end within %s", checkSpan)
	case porcupine.Illegal:
		path := filepath.Join(os.TempDir(), fmt.Sprintf("muster-linear-%d.html", os.Getpid()))
		if dir := os.Getenv("MUSTER_LAB_LOGS"); dir != "" {
			path = filepath.Join(dir, filepath.Base(path))
		}
		if err := porcupine.VisualizePath(model, info, path); err != nil {
			h.t.Error(err)
		}
		h.t.Errorf("the history is not linearizable: %s shows it", path)
	}
}

// unknown is the end of an operation of which nobody knows whether it happened: it may
// at any time later.
const unknown = math.MaxInt64

// client does one operation after the other through one member.
type client struct {
	h              *history
	member, number int
	random         *rand.Rand
}

func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		r := c.random.Intn(len(c.h.registers))
		switch c.random.Intn(4) {
		case 0:
			c.look(ctx, c.random.Intn(len(c.h.members)), r, "")
		case 1:
			c.write(ctx, r)
		case 2:
			c.swap(ctx, r)
		case 3:
			c.look(ctx, c.member, r, "?stale=1")
		}
		time.Sleep(time.Duration(c.random.Intn(30)) * time.Millisecond)
	}
}

func (c *client) done(in input, out output, call, end int64) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.operations = append(c.h.operations, porcupine.Operation{ClientId: c.number, Input: in, Output: out, Call: call, Return: end})
}

func (c *client) count(what string) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.tally[what]++
}

// request is one request, with the patience of a user.
func (c *client) request(ctx context.Context, member int, method, path string, body any, header http.Header) (lab.Answer, error) {
	// Not cut short by the end of the round: how it ended shall be known.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.h.members[member].Request(ctx, method, path, body, header)
}

// look is a read through a member. Unless the query asks for less, or the answer says that
// it may be old, it belongs to the history: it shows all that was acknowledged before.
func (c *client) look(ctx context.Context, member, r int, query string) (value, tag string, ok bool) {
	floor := c.h.floors[member][r].Load()
	reg := c.h.registers[r]
	call := c.h.now()
	answer, err := c.request(ctx, member, http.MethodGet, reg.path+query, nil, nil)
	if err != nil || answer.Code != http.StatusOK {
		c.count("reads refused")
		return "", "", false
	}
	value, tag = reg.value(answer), strings.Trim(answer.Header.Get("ETag"), `"`)
	revision, err := strconv.ParseUint(tag, 16, 64)
	switch {
	case err != nil:
		c.h.t.Errorf("%s through m%d has the ETag %q; want a revision", reg.path, member+1, tag)
	case revision < floor:
		c.h.t.Errorf("%s through m%d is at revision %d; it was at %d there", reg.path, member+1, revision, floor)
	default:
		raise(&c.h.floors[member][r], revision)
	}
	switch {
	case query != "":
		c.count("reads of what there is")
	case answer.Header.Get("Muster-Stale") != "":
		c.count("reads that say they may be old")
	default:
		c.done(input{register: r, kind: read}, output{value: value}, call, c.h.now())
		c.count("reads")
	}
	return value, tag, true
}

func raise(floor *atomic.Uint64, to uint64) {
	for {
		now := floor.Load()
		if now >= to || floor.CompareAndSwap(now, to) {
			return
		}
	}
}

// write sets a register, whatever it holds.
func (c *client) write(ctx context.Context, r int) {
	c.change(ctx, input{register: r, kind: write, to: c.value()}, http.MethodPatch, nil)
}

// swap sets a register if it still holds what was seen, through this member or
// another.
func (c *client) swap(ctx context.Context, r int) {
	from, tag, ok := c.look(ctx, c.random.Intn(len(c.h.members)), r, "")
	if !ok {
		return
	}
	method := []string{http.MethodPut, http.MethodPatch}[c.random.Intn(2)]
	c.change(ctx, input{register: r, kind: swap, from: from, to: c.value()}, method, http.Header{"If-Match": {tag}})
}

// value is one that nobody has written yet.
func (c *client) value() string { return "v" + strconv.FormatInt(c.h.values.Add(1), 10) }

func (c *client) change(ctx context.Context, in input, method string, header http.Header) {
	reg := c.h.registers[in.register]
	call := c.h.now()
	answer, err := c.request(ctx, c.member, method, reg.path, map[string]any{reg.field: in.to}, header)
	end := c.h.now()
	switch {
	case err == nil && answer.Code == http.StatusOK:
		c.done(in, output{happened: true}, call, end)
		c.count(in.kind + "s")
		c.look(ctx, c.member, in.register, "?stale=1") // a member shows what it acknowledged
	case err == nil && answer.Code == http.StatusPreconditionFailed:
		if in.kind != swap {
			c.h.t.Errorf("%s %s without an ETag: %s", method, reg.path, answer.Error)
		}
		c.done(in, output{}, call, end)
		c.count(in.kind + "s stale")
	case neverSent(err), err == nil && saysNotApplied(answer):
		// It never happened: who reads its value all the same finds the lie.
		c.count(in.kind + "s not applied")
	case err == nil && answer.Code != http.StatusServiceUnavailable:
		c.h.t.Errorf("%s %s through m%d: %d %s", method, reg.path, c.member+1, answer.Code, answer.Error)
	default:
		c.done(in, output{unknown: true}, call, unknown)
		c.count(in.kind + "s unknown")
	}
}

// neverSent reports whether nobody was there to take the request.
func neverSent(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "dial"
}

// saysNotApplied reports whether a refusal promises that nothing was done.
func saysNotApplied(answer lab.Answer) bool {
	return answer.Code == http.StatusServiceUnavailable &&
		(strings.Contains(answer.Error, "not applied") || strings.Contains(answer.Error, "it is offline"))
}
