package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Network is a switch with a cable to each member that is started in it
// (Options.Network): every member has a network namespace of its own, the switch
// stands in another one, and the machine's own namespace sees nothing of either. So
// no address or name can be taken by another lab, or by the machine.
//
// The namespaces have no names, and so are gone with the last process in them, however
// this one ends.
type Network struct {
	t   T
	hub *space

	mu sync.Mutex
	// members are those that have a cable, by its number less one; guarded by mu.
	members []*Member
	// cut are the pairs of which what the first sends does not reach the second;
	// loss is the share of packets, in percent, that a member's cable loses. Both are
	// guarded by mu.
	cut  map[[2]*Member]bool
	loss map[*Member]int
}

// space is a network namespace, and for a member the mount namespace that goes with it:
// liblxc finds bridges in /sys, which shows the network of whoever mounted it.
type space struct {
	ns     netns.NsHandle
	mounts *os.File
	links  *netlink.Handle
}

// bridgeName is the switch in its namespace, cableName a member's end of its cable.
const (
	bridgeName = "switch"
	cableName  = "eth0"
)

// NewNetwork makes a switch without cables. It is there until the test ends, and a
// process that still is in one of its namespaces then is a failure.
func NewNetwork(t T) *Network {
	t.Helper()
	NeedsRoot(t)
	n := &Network{t: t, cut: map[[2]*Member]bool{}, loss: map[*Member]int{}}
	hub, err := newSpace()
	if err == nil {
		n.hub = hub
		err = hub.up(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}})
	}
	t.Cleanup(n.destroy)
	if err != nil {
		t.Fatalf("make a switch: %v", err)
	}
	return n
}

// newSpace makes a network namespace whose loopback works.
func newSpace() (*space, error) {
	s := &space{ns: netns.None()}
	err := elsewhere(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.links, err = netlink.NewHandleAt(s.ns); err != nil {
		return nil, errors.Join(err, s.close())
	}
	lo, err := s.links.LinkByName("lo")
	if err == nil {
		err = s.links.LinkSetUp(lo)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// elsewhere calls do on a thread that may change its namespace: it is brought back.
func elsewhere(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = do()
		back := netns.Set(home)
		if back == nil {
			// One that can't be brought back ends here instead.
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, back)
	}()
	return <-done
}

// run calls do on a thread in the namespaces: a process that it starts is there too.
func (s *space) run(do func() error) error {
	if s.mounts == nil {
		return elsewhere(func() error {
			if err := netns.Set(s.ns); err != nil {
				return err
			}
			return do()
		})
	}
	return onNewThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		if err := unix.Setns(int(s.mounts.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter a mount namespace: %w", err)
		}
		return do()
	})
}

// onNewThread calls do on a thread of its own, which ends with it: nothing could bring
// one back that has left the others' mount namespace.
func onNewThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and stands for the process in /proc.
			done <- onNewThread(do)
			runtime.UnlockOSThread()
			return
		}
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// ownMounts gives the space a mount namespace whose /sys shows its network. The control
// groups stay where they are. What others have mounted beside dir is left out: it would
// stay mounted here, and its devices busy, when they have unmounted it.
func (s *space) ownMounts(dir string) error {
	return onNewThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep mounts to a namespace: %w", err)
		}
		for _, point := range slices.Backward(mountsUnder(os.TempDir())) {
			// Where the directory for temporary files is a file system of its own, dir is in it.
			if point != os.TempDir() && point != dir && !strings.HasPrefix(point, dir+"/") {
				_ = unix.Unmount(point, unix.MNT_DETACH) // it may have gone by itself
			}
		}
		const groups = "/sys/fs/cgroup"
		kept, err := unix.OpenTree(unix.AT_FDCWD, groups, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("keep %s: %w", groups, err)
		}
		defer unix.Close(kept)
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mount /sys: %w", err)
		}
		if err := unix.MoveMount(kept, "", unix.AT_FDCWD, groups, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("put %s back: %w", groups, err)
		}
		s.mounts, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
		return err
	})
}

func (s *space) up(link netlink.Link) error {
	if err := s.links.LinkAdd(link); err != nil {
		return err
	}
	return s.links.LinkSetUp(link)
}

func (s *space) close() error {
	if s.links != nil {
		s.links.Close()
	}
	if s.mounts != nil {
		_ = s.mounts.Close() // only held
	}
	if !s.ns.IsOpen() {
		return nil
	}
	return s.ns.Close()
}

// port is the switch's end of the cable with that number.
func port(number int) string { return fmt.Sprintf("port%d", number) }

// address is that of the member at the cable with that number.
func address(number int) net.IP { return net.IPv4(10, 77, byte(number>>8), byte(number)) }

// attach makes the member's namespace and plugs it into the switch.
func (n *Network) attach(m *Member) error {
	own, err := newSpace()
	if err == nil {
		err = own.ownMounts(m.Dir)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.members = append(n.members, m)
	number := len(n.members)
	n.mu.Unlock()
	m.space, m.cable = own, number
	bridge, err := n.hub.links.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	err = n.hub.up(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port(number), MasterIndex: bridge.Attrs().Index},
		PeerName:  cableName, PeerNamespace: netlink.NsFd(own.ns),
	})
	if err != nil {
		return err
	}
	cable, err := own.links.LinkByName(cableName)
	if err != nil {
		return err
	}
	at := &netlink.Addr{IPNet: &net.IPNet{IP: address(number), Mask: net.CIDRMask(16, 32)}}
	if err := own.links.AddrAdd(cable, at); err != nil {
		return err
	}
	return own.links.LinkSetUp(cable)
}

// Traffic is how many bytes have gone over a member's cable, from it and to it.
func (n *Network) Traffic(m *Member) (sent, received uint64, err error) {
	link, err := n.hub.links.LinkByName(port(m.cable))
	if err != nil {
		return 0, 0, err
	}
	// What the switch's end receives the member has sent.
	statistics := link.Attrs().Statistics
	return statistics.RxBytes, statistics.TxBytes, nil
}

// destroy runs when all members are gone.
func (n *Network) destroy() {
	spaces := []*space{n.hub}
	for _, m := range n.members {
		spaces = append(spaces, m.space)
	}
	for _, s := range spaces {
		if s == nil {
			continue
		}
		for _, left := range inhabitants(s.ns) {
			n.t.Errorf("left behind in a member's network: %s", left)
		}
		if err := s.close(); err != nil {
			n.t.Errorf("close a network namespace: %v", err)
		}
	}
}

// inhabitants are the processes in a network namespace. One that has just been
// killed may take a moment to leave.
func inhabitants(ns netns.NsHandle) []string {
	var found []string
	for range 50 {
		found = nil
		for _, process := range processes() {
			other, err := netns.GetFromPath(filepath.Join(process, "ns/net"))
			if err != nil {
				continue // it has ended
			}
			if other.Equal(ns) {
				found = append(found, describe(process))
			}
			_ = other.Close()
		}
		if found == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return found
}

// processes are the directories of all processes in /proc.
func processes() []string {
	found, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	return found
}

// describe is a process as a line for people.
func describe(process string) string {
	cmdline, _ := os.ReadFile(filepath.Join(process, "cmdline")) // one that has ended has none
	return filepath.Base(process) + " " + strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
}

// Inside calls do where the member's network is: a process that it starts is there too.
func (m *Member) Inside(do func() error) error {
	if m.space == nil {
		return do()
	}
	return m.space.run(do)
}
