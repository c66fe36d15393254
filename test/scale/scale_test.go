// Package scale measures a cluster of many real daemons on one machine: how long joining
// takes when many join at once, what a member costs in memory, processor time and
// traffic while nothing happens, and how long writes stop when the leader is killed.
//
// It never fails for being slow: what it asserts is that everybody joins, that joining
// touches no consensus, and that all members show the same in the end.
package scale

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"muster/test/lab"
)

// begun is how many members there are before the others join at the same moment, and
// rest how long nothing happens while it is measured what that costs.
const (
	begun   = 10
	voters  = 3
	standby = 2
	rest    = 20 * time.Second
)

// size is how many members MUSTER_SCALE asks for.
func size(t *testing.T) int {
	t.Helper()
	value := os.Getenv("MUSTER_SCALE")
	if value == "" {
		t.Skip("takes minutes and gigabytes: set MUSTER_SCALE to a number of members, such as 25 (make scale)")
	}
	count, err := strconv.Atoi(value)
	if err != nil || count <= begun {
		t.Fatalf("MUSTER_SCALE=%q: want a number above %d", value, begun)
	}
	return count
}

// cost is what a member has used up to a moment.
type cost struct {
	pss            float64 // megabytes, now
	sent, received uint64  // bytes
	processor      time.Duration
}

func costOf(t *testing.T, network *lab.Network, m *lab.Member) cost {
	t.Helper()
	var c cost
	var err error
	if c.sent, c.received, err = network.Traffic(m); err != nil {
		t.Fatal(err)
	}
	process := filepath.Join("/proc", strconv.Itoa(m.PID()))
	rollup, err := os.ReadFile(filepath.Join(process, "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kilobytes, _ := strconv.ParseFloat(fields[1], 64) // proc(5) says that it is a number
			c.pss = kilobytes / 1024
		}
	}
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	// The name of the program, in parentheses, may hold anything.
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	for _, ticks := range fields[11:13] { // utime and stime, in hundredths of a second
		number, _ := strconv.Atoi(ticks) // proc(5) says that it is a number
		c.processor += time.Duration(number) * 10 * time.Millisecond
	}
	return c
}

// roleOf is a row of the table.
func roleOf(row lab.Row) string {
	switch {
	case row.Leads() && row.Coordinates():
		return "leader and coordinator"
	case row.Leads():
		return "leader"
	case row.Coordinates():
		return "coordinator"
	case row.Votes():
		return "voter"
	case row.StandsBy():
		return "stand-by"
	}
	return "worker"
}

// settled are the members that are online, in the order of members.
func settled(t *testing.T, via *lab.Member, count int) map[int]lab.Row {
	t.Helper()
	rows, err := via.Settled(t.Context(), count)
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]lab.Row{}
	for _, row := range rows {
		number, err := strconv.Atoi(strings.TrimPrefix(row.Name, "m"))
		if err != nil {
			t.Fatal(err)
		}
		found[number-1] = row
	}
	return found
}

// control are the members that have the logs.
func control(rows map[int]lab.Row) []string {
	var names []string
	for _, row := range rows {
		if !row.Works() {
			names = append(names, row.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestScale(t *testing.T) {
	count := size(t)
	network := lab.NewNetwork(t)
	options := lab.Options{Network: network}
	var table strings.Builder
	print := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(print, format+"\n", args...) }

	began := time.Now()
	members := lab.ClusterOf(t, begun, options)
	say("%d members, one after another\t%v", begun, time.Since(began).Round(time.Millisecond))
	if _, err := members[0].Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"cluster.max_standby": strconv.Itoa(standby)}}); err != nil {
		t.Fatal(err)
	}
	before := settled(t, members[0], begun)
	for deadline := time.Now().Add(time.Minute); len(control(before)) != voters+standby; before = settled(t, members[0], begun) {
		if time.Now().After(deadline) {
			t.Fatalf("%v have the logs; want %d voters and %d that stand by", control(before), voters, standby)
		}
		time.Sleep(100 * time.Millisecond)
	}
	began = time.Now()
	members, took := lab.Crowd(t, members, count-begun, options)
	slices.Sort(took)
	say("%d more at the same moment, each\t%v to %v, half of them within %v", len(took), round(took[0]), round(took[len(took)-1]), round(took[len(took)/2]))
	rows := settled(t, members[0], count)
	say("all %d shown online, from the start of their daemons\t%v", count, time.Since(began).Round(time.Millisecond))
	if was, is := control(before), control(rows); !slices.Equal(was, is) {
		t.Errorf("joining changed who has the logs from %v to %v", was, is)
	}

	time.Sleep(3 * time.Second)
	start := make([]cost, count)
	for i, m := range members {
		start[i] = costOf(t, network, m)
	}
	time.Sleep(rest)
	type sum struct {
		members                        int
		pss, sent, received, processor float64
	}
	sums := map[string]*sum{}
	for i, m := range members {
		end := costOf(t, network, m)
		role := roleOf(rows[i])
		if sums[role] == nil {
			sums[role] = &sum{}
		}
		s := sums[role]
		s.members++
		s.pss += end.pss
		s.sent += float64(end.sent-start[i].sent) / 1024 / rest.Seconds()
		s.received += float64(end.received-start[i].received) / 1024 / rest.Seconds()
		s.processor += 100 * (end.processor - start[i].processor).Seconds() / rest.Seconds()
	}
	say("\nat rest, a member on average\tmembers\tPSS MB\tsent kB/s\treceived kB/s\tprocessor %%")
	for _, role := range []string{"leader and coordinator", "leader", "coordinator", "voter", "stand-by", "worker"} {
		if s := sums[role]; s != nil {
			n := float64(s.members)
			say("%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f", role, s.members, s.pss/n, s.sent/n, s.received/n, s.processor/n)
		}
	}

	say("\nwrites stop when it is killed\tthrough a worker\tthrough a voter")
	for _, part := range []string{"the leader of the database", "the coordinator"} {
		rows = settled(t, members[0], count)
		find := func(pick func(lab.Row) bool) *lab.Member {
			for i, m := range members {
				if row, online := rows[i]; online && pick(row) {
					return m
				}
			}
			t.Fatalf("nobody plays the part of %s: %+v", part, rows)
			return nil
		}
		pick := lab.Row.Leads
		if part == "the coordinator" {
			pick = lab.Row.Coordinates
		}
		victim := find(pick)
		through := []*lab.Member{
			find(lab.Row.Works),
			find(func(r lab.Row) bool { return r.Votes() && !r.Leads() && !r.Coordinates() }),
		}
		outages := outage(t, through, victim)
		say("%s\t%v\t%v", part, round(outages[0]), round(outages[1]))
		via := through[0]
		if _, err := via.Settled(t.Context(), count-1); err != nil {
			t.Error(err)
		}
		victim.Up()
	}
	settled(t, members[0], count)
	// All show the same: a write through the last is read everywhere.
	if _, err := members[count-1].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "last"}); err != nil {
		t.Error(err)
	}
	for i, m := range members {
		if err := m.Get(t.Context(), "/1.0/profiles/last", &struct{}{}); err != nil {
			t.Errorf("m%d: %v", i+1, err)
		}
	}
	if err := print.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// outage writes through each of the members all the time, kills the victim, and returns
// the longest time that each had no success.
func outage(t *testing.T, through []*lab.Member, victim *lab.Member) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	longest := make([]time.Duration, len(through))
	var writing sync.WaitGroup
	for i, m := range through {
		// Each has its own: two that change the same thing wait for each other.
		own := map[string]any{"name": fmt.Sprint("written-", i)}
		if answer, err := m.Request(ctx, http.MethodPost, "/1.0/profiles", own, nil); err != nil || answer.Code != http.StatusCreated && answer.Code != http.StatusConflict {
			t.Fatalf("a profile to write to: %d %q, %v", answer.Code, answer.Error, err)
		}
		writing.Go(func() {
			last := time.Now()
			for n := 0; ctx.Err() == nil; n++ {
				body := map[string]any{"description": fmt.Sprint(n)}
				answer, err := m.Request(ctx, http.MethodPatch, fmt.Sprint("/1.0/profiles/written-", i), body, nil)
				if err == nil && answer.Code == http.StatusOK {
					longest[i] = max(longest[i], time.Since(last))
					last = time.Now()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	time.Sleep(time.Second)
	victim.Kill()
	time.Sleep(6 * time.Second)
	cancel()
	writing.Wait()
	return longest
}
