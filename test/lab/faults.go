package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Pause stops the daemon where it is, as an overloaded machine or a hypervisor does:
// its connections stay open and nobody answers. Resume lets it go on.
func (m *Member) Pause() { m.signal(syscall.SIGSTOP) }

// Resume takes back what Pause did.
func (m *Member) Resume() { m.signal(syscall.SIGCONT) }

func (m *Member) signal(signal syscall.Signal) {
	m.t.Helper()
	if m.daemon == nil {
		m.t.Errorf("%v: the daemon is not running", signal)
		return
	}
	if err := m.daemon.Process.Signal(signal); err != nil {
		m.t.Errorf("%v: %v", signal, err)
	}
}

// Partition cuts the members off from all others in the network, in both
// directions. Those of them that are named together still reach each other.
func (n *Network) Partition(members ...*Member) {
	n.t.Helper()
	within := map[*Member]bool{}
	for _, m := range members {
		within[m] = true
	}
	n.change(func() {
		for _, m := range members {
			for _, other := range n.members {
				if !within[other] {
					n.cut[[2]*Member{m, other}] = true
					n.cut[[2]*Member{other, m}] = true
				}
			}
		}
	})
}

// Cut drops what from sends to to; the other direction works.
func (n *Network) Cut(from, to *Member) {
	n.t.Helper()
	n.change(func() { n.cut[[2]*Member{from, to}] = true })
}

// Lose drops that share of the packets that the member sends and receives.
func (n *Network) Lose(m *Member, percent int) {
	n.t.Helper()
	n.change(func() { n.loss[m] = percent })
}

// Unplug takes the member's cable out: unlike after a Partition, it can see that.
func (n *Network) Unplug(m *Member) {
	n.t.Helper()
	if err := n.plug(m, false); err != nil {
		n.t.Errorf("take out a cable: %v", err)
	}
}

// Heal takes back all that was done to the network.
func (n *Network) Heal() {
	n.t.Helper()
	n.change(func() {
		clear(n.cut)
		clear(n.loss)
	})
	n.mu.Lock()
	members := n.members
	n.mu.Unlock()
	for _, m := range members {
		if err := n.plug(m, true); err != nil {
			n.t.Errorf("put a cable in: %v", err)
		}
	}
}

func (n *Network) plug(m *Member, in bool) error {
	link, err := n.hub.links.LinkByName(port(m.cable))
	if err != nil {
		return err
	}
	if in {
		return n.hub.links.LinkSetUp(link)
	}
	return n.hub.links.LinkSetDown(link)
}

// change makes a change of the faults and has the switch follow it.
func (n *Network) change(make func()) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	make()
	if err := n.enforce(); err != nil {
		n.t.Errorf("change the faults of the network: %v", err)
	}
}

// enforce replaces the switch's rules, all at once. They stand there and not with the
// members, whose firewalls are muster's business. n.mu is held.
func (n *Network) enforce() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.hub.ns)))
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "faults", Family: nftables.TableFamilyBridge})
	chain := conn.AddChain(&nftables.Chain{
		Name: "faults", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	conn.FlushChain(chain)
	drop := func(when ...[]expr.Any) {
		rule := &nftables.Rule{Table: table, Chain: chain}
		for _, condition := range when {
			rule.Exprs = append(rule.Exprs, condition...)
		}
		rule.Exprs = append(rule.Exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
		conn.AddRule(rule)
	}
	for pair := range maps.Keys(n.cut) {
		drop(through(expr.MetaKeyIIFNAME, pair[0]), through(expr.MetaKeyOIFNAME, pair[1]))
	}
	for m, percent := range n.loss {
		drop(through(expr.MetaKeyIIFNAME, m), share(percent))
		drop(through(expr.MetaKeyOIFNAME, m), share(percent))
	}
	return conn.Flush()
}

// through is true of packets on the member's cable.
func through(key expr.MetaKey, m *Member) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, port(m.cable))
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

// share is true of that many packets in a hundred, by chance.
func share(percent int) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
		// Numbers are compared byte by byte from the first.
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, uint32(percent))},
	}
}

// ballast is the file that fills a member's disk.
func (m *Member) ballast() string { return filepath.Join(m.Dir, "ballast") }

// FillDisk leaves no room on the member's disk, which Options.Disk must have made.
func (m *Member) FillDisk() {
	m.t.Helper()
	if m.options.Disk == 0 {
		m.t.Fatal("the member has no disk of its own to fill: set Options.Disk")
	}
	file, err := os.OpenFile(m.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err := file.Write(block); errors.Is(err, unix.ENOSPC) {
			// The last bytes too.
			block = block[:len(block)/2]
		} else if err != nil {
			m.t.Fatal(err)
		}
	}
}

// FreeDisk takes back what FillDisk did.
func (m *Member) FreeDisk() {
	m.t.Helper()
	if err := os.Remove(m.ballast()); err != nil {
		m.t.Error(err)
	}
}

// mountDisk gives the member's directory a file system of its own: ext4, as it fills up
// and fails like those that people have.
func (m *Member) mountDisk() error {
	image := m.Dir + ".disk"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	// The mount keeps the file.
	defer os.Remove(image)
	if err := os.Truncate(image, m.options.Disk); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", image},
		{"mount", "-o", "loop", image, m.Dir},
		{"chmod", "0711", m.Dir},
		{"rmdir", filepath.Join(m.Dir, "lost+found")},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("make a disk for %s: %s: %w: %s", m.Dir, command[0], err, out)
		}
	}
	return nil
}

// FailDisk has the disk refuse all that the daemon writes with an I/O error, until mend is
// called. It needs strace.
func (m *Member) FailDisk() (mend func()) {
	m.t.Helper()
	calls := "io_submit,pwrite64,pwritev2,fsync,fdatasync,ftruncate,fallocate"
	trace := exec.Command("strace", "-f", "-q", "-o", "/dev/null", "-e", "trace="+calls, "-e", "inject="+calls+":error=EIO", "-p", strconv.Itoa(m.daemon.Process.Pid))
	if err := trace.Start(); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		m.t.Helper()
		// It lets go of the daemon and ends.
		if err := trace.Process.Signal(syscall.SIGTERM); err != nil {
			m.t.Error(err)
		}
		_ = trace.Wait() // it ends by the signal
	}
}
