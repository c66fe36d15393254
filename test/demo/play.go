package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/test/lab"
)

// cluster is what is played with.
type cluster struct {
	*stage
	members []*lab.Member
	// endpoint is the member that everything goes through, if nothing else is said.
	endpoint int
}

// instance is an instance as the API shows it.
type instance struct {
	Name     string `json:"name"`
	Status   string `json:"status"`
	Location string `json:"location"`
}

var launched = []string{"c1", "c2", "c3", "c4", "c5", "c6"}

// play is the demo from its beginning to its end; the members go with the stage.
func play(s *stage) {
	c := &cluster{stage: s}
	fmt.Println("Three members on this machine, each in a network of its own")
	c.do("start three members and make a cluster of them", func() {
		c.members = lab.ClusterOf(s, len(c.names()), lab.Options{Network: lab.NewNetwork(s)})
		c.settle()
	})
	// The endpoint is to survive the leader.
	c.endpoint = (c.leader() + 1) % len(c.members)
	fmt.Printf("\nThe endpoint is %s: all commands go through it, unless the prompt says otherwise\n", c.name(c.endpoint))
	c.muster("the members", "cluster", "list", "--format", "compact")
	c.muster("build and import a small image", "image", "build", "busybox", "--alias", "busybox")
	c.muster("where an instance would go, and why", "placement", "explain", "busybox", "c1", "--format", "compact")
	c.muster("launch c1", "launch", "busybox", "c1")
	c.launchMore()
	c.waitFor("all have an address by DHCP", c.addressed)
	c.muster("instances are spread over the members", "list", "-c", "ns4L", "--format", "compact")
	c.files()
	c.snapshots()
	c.muster("limit its memory while it runs", "config", "set", "c1", "limits.memory=64MiB")
	c.move()
	c.killLeader()
	c.muster("stop c1", "stop", "c1")
	c.muster("delete everything", append([]string{"delete", "--force"}, slices.Sorted(maps.Keys(c.instances()))...)...)
	fmt.Println()
}

func (c *cluster) names() []string          { return []string{"m1", "m2", "m3"} }
func (c *cluster) name(number int) string   { return c.names()[number] }
func (c *cluster) number(name string) int   { return slices.Index(c.names(), name) }
func (c *cluster) other(name string) string { return c.name((c.number(name) + 1) % len(c.members)) }

// do takes the time of a step.
func (c *cluster) do(what string, run func()) {
	began := time.Now()
	run()
	if c.ctx.Err() != nil {
		c.Fatal(c.ctx.Err())
	}
	c.record(what, time.Since(began))
}

// command runs muster through a member and returns what it printed; it must succeed.
func (c *cluster) command(through int, args ...string) string {
	asked := c.members[through].Command("muster", args...)
	cmd := exec.CommandContext(c.ctx, asked.Path, args...)
	cmd.Env = asked.Env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		c.Fatalf("%s$ muster %s: %v\n%s%s", c.name(through), strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// muster is a step that is one command through the endpoint, shown with its output.
func (c *cluster) muster(what string, args ...string) string {
	return c.through(c.endpoint, what, args...)
}

// through is muster with a member of its own.
func (c *cluster) through(member int, what string, args ...string) string {
	var out string
	c.do(what, func() { out = c.command(member, args...) })
	fmt.Printf("    %s$ muster %s\n", c.name(member), strings.Join(args, " "))
	for line := range strings.Lines(out) {
		fmt.Print("    ", line)
	}
	return out
}

// waitFor is a step that waits until look says that all is well, which it says by "".
func (c *cluster) waitFor(what string, look func() string) {
	c.do(what, func() { c.eventually(what, look) })
}

func (c *cluster) eventually(what string, look func() string) {
	var problem string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && c.ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if problem = look(); problem == "" {
			return
		}
	}
	c.Fatalf("%s: %s", what, problem)
}

// want ends the demo if something did not come out as it should.
func (c *cluster) want(what, got, want string) {
	if got != want {
		c.Fatalf("%s: got %q; want %q", what, got, want)
	}
}

// settle waits until every member shows every member online, with a database.
func (c *cluster) settle() {
	for i, m := range c.members {
		c.eventually(c.name(i)+" sees the cluster", func() string {
			rows, err := m.Rows(c.ctx)
			if err != nil {
				return err.Error()
			}
			for _, row := range rows {
				if row.Status != "Online" || !slices.ContainsFunc(row.Roles, func(role string) bool { return strings.HasPrefix(role, "database") }) {
					return fmt.Sprintf("%v", rows)
				}
			}
			if len(rows) != len(c.members) || !slices.ContainsFunc(rows, lab.Row.Leads) {
				return fmt.Sprintf("%v", rows)
			}
			return ""
		})
	}
}

// leader is the member that leads the database.
func (c *cluster) leader() int {
	rows, err := c.members[c.endpoint].Rows(c.ctx)
	if err != nil {
		c.Fatal(err)
	}
	return slices.IndexFunc(rows, lab.Row.Leads)
}

// instances are all there are, by name.
func (c *cluster) instances() map[string]instance {
	var rows []instance
	if err := c.members[c.endpoint].Get(c.ctx, "/1.0/instances?recursion=1", &rows); err != nil {
		c.Fatal(err)
	}
	found := map[string]instance{}
	for _, row := range rows {
		found[row.Name] = row
	}
	return found
}

// process is the first process of an instance.
func (c *cluster) process(name string) (int, error) {
	var shown struct {
		Pid int `json:"pid"`
	}
	err := c.members[c.endpoint].Get(c.ctx, "/1.0/instances/"+name+"/state", &shown)
	return shown.Pid, err
}

// launchMore launches the rest at once, all through the endpoint.
func (c *cluster) launchMore() {
	more := launched[1:]
	c.do(fmt.Sprintf("launch %d more at once", len(more)), func() {
		failed := make(chan error, len(more))
		for _, name := range more {
			go func() { failed <- c.members[c.endpoint].Launch(c.ctx, name) }()
		}
		for range more {
			if err := <-failed; err != nil {
				c.Errorf("launch: %v", err)
			}
		}
		if c.Failed() {
			c.Fatal("not all were launched")
		}
	})
	count := map[string]int{}
	for _, each := range c.instances() {
		count[each.Location]++
	}
	for _, name := range c.names() {
		if count[name] == 0 {
			c.Fatalf("no instance is on %s: %v", name, count)
		}
	}
}

func (c *cluster) addressed() string {
	out := c.command(c.endpoint, "list", "-c", "4", "--format", "csv")
	if found := strings.Count(out, "(eth0)"); found != len(launched) {
		return fmt.Sprintf("%d of %d have one", found, len(launched))
	}
	return ""
}

// files executes in c1 and moves files in and out, through members that do not have it.
func (c *cluster) files() {
	home := c.instances()["c1"].Location
	wrong := c.number(c.other(home))
	out := c.through(wrong, "execute a command in c1, which is on "+home+", through "+c.name(wrong), "exec", "c1", "--", "uname", "-n")
	c.want("the name inside", out, "c1\n")
	dir := c.members[c.endpoint].Dir // which goes, however this ends
	there, back := filepath.Join(dir, "greeting"), filepath.Join(dir, "back")
	if err := os.WriteFile(there, []byte("hello from outside\n"), 0o600); err != nil {
		c.Fatal(err)
	}
	c.muster("push a file", "file", "push", there, "c1/root/greeting")
	c.want("the file inside", c.muster("read it inside", "exec", "c1", "--", "cat", "/root/greeting"), "hello from outside\n")
	c.through(wrong, "pull it back", "file", "pull", "c1/root/greeting", back)
	got, err := os.ReadFile(back)
	if err != nil {
		c.Fatal(err)
	}
	c.want("the file that came back", string(got), "hello from outside\n")
}

func (c *cluster) snapshots() {
	c.muster("take a snapshot", "snapshot", "c1", "clean")
	c.muster("change the file", "exec", "c1", "--", "sh", "-c", "echo changed > /root/greeting")
	c.muster("restore the snapshot", "restore", "c1", "clean")
	c.want("the file", c.muster("the file is as it was", "exec", "c1", "--", "cat", "/root/greeting"), "hello from outside\n")
}

func (c *cluster) move() {
	target := c.other(c.instances()["c1"].Location)
	c.muster("move c1 to "+target+" while it runs", "move", "c1", "--target", target)
	moved := c.instances()["c1"]
	c.want("c1 is", moved.Status+" on "+moved.Location, "Running on "+target)
	c.want("the file", c.muster("it has what it had", "exec", "c1", "--", "cat", "/root/greeting"), "hello from outside\n")
}

// killLeader kills the daemon that leads, while a client writes, and has it come back.
func (c *cluster) killLeader() {
	leader := c.leader()
	if leader == c.endpoint {
		c.endpoint = (leader + 1) % len(c.members)
	}
	victim, survivor := c.members[leader], c.members[c.endpoint]
	var there, elsewhere string
	for name, each := range c.instances() {
		if each.Location == c.name(leader) {
			there = name
		} else {
			elsewhere = name
		}
	}
	if there == "" {
		there = "c0"
		c.muster("launch one more on "+c.name(leader), "launch", "busybox", there, "--target", c.name(leader))
	}
	process, err := c.process(there)
	if err != nil {
		c.Fatal(err)
	}

	fmt.Printf("\nA client writes without a pause through %s; %s leads\n", c.name(c.endpoint), c.name(leader))
	w := startWriter(c.ctx, survivor)
	c.Cleanup(w.end)
	begun := time.Now()
	c.eventually("the client writes", func() string {
		if count := w.acknowledged(begun); count < 50 {
			return fmt.Sprintf("%d writes", count)
		}
		return ""
	})
	killed := time.Now()
	c.do("kill -9 "+c.name(leader)+", the leader", victim.Kill)
	c.muster(elsewhere+" answers meanwhile", "exec", elsewhere, "--", "uname", "-n")
	c.waitFor("writes go on, and "+c.name(leader)+" is shown offline", func() string {
		rows, err := survivor.Rows(c.ctx)
		if err != nil {
			return err.Error()
		}
		if rows[leader].Status != "Offline" || w.acknowledged(killed.Add(time.Second)) < 50 {
			return fmt.Sprintf("%v", rows)
		}
		return ""
	})
	w.end()
	gap := w.gap(killed)
	c.record("THE GAP: the longest time without a write", gap)
	c.record("the slowest list of instances meanwhile", w.slowest)
	c.muster("what the others see", "list", "-c", "nsL", "--format", "compact")
	c.do("start "+c.name(leader)+" again", func() {
		victim.Up()
		c.settle()
	})
	for i, m := range c.members {
		var shown struct{ Config map[string]string }
		c.eventually("the last write", func() string {
			if err := m.Get(c.ctx, "/1.0/cluster/members/m1", &shown); err != nil {
				return err.Error()
			}
			// A write whose outcome the client does not know may have come after it.
			if got, err := strconv.Atoi(shown.Config[counter]); err != nil || got < w.last {
				return fmt.Sprintf("%s has %q; want %d, which was acknowledged", c.name(i), shown.Config[counter], w.last)
			}
			return ""
		})
	}
	c.waitFor(there+" on "+c.name(leader)+" never noticed", func() string {
		// Until the endpoint has connected to the member again.
		if now, err := c.process(there); err != nil || now != process {
			return fmt.Sprintf("its process is %d, %v; it was %d", now, err, process)
		}
		return ""
	})
	fmt.Printf("    every acknowledged write (%d) is on every member, and process %d is the one it was\n\n", w.last, process)
}
