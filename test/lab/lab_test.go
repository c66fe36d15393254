package lab

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trio starts three daemons that know nothing of each other, at one switch.
func trio(t *testing.T) (*Network, []*Member) {
	t.Helper()
	network := NewNetwork(t)
	var members []*Member
	for range 3 {
		members = append(members, Start(t, Options{NoInit: true, Network: network}))
	}
	return network, members
}

// listen answers every packet that the member gets on a port of the test's own, until
// the test ends.
func listen(t *testing.T, m *Member) {
	t.Helper()
	var conn net.PacketConn
	err := m.space.run(func() (err error) {
		conn, err = net.ListenPacket("udp4", ":7007")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	answering := make(chan struct{})
	go func() {
		defer close(answering)
		buffer := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from) // a fault may forbid it
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-answering })
}

// answered is how many of count packets from one member to the other are answered.
func answered(t *testing.T, from, to *Member, count int) int {
	t.Helper()
	var conn net.Conn
	err := from.space.run(func() (err error) {
		conn, err = net.Dial("udp4", net.JoinHostPort(address(to.cable).String(), "7007"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := 0
	for range count {
		_, _ = conn.Write([]byte("here?")) // a fault may forbid it
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 64)); err == nil {
			got++
		}
	}
	return got
}

func TestFaultsOfTheNetwork(t *testing.T) {
	network, members := trio(t)
	a, b, c := members[0], members[1], members[2]
	for _, m := range members {
		listen(t, m)
	}
	// What was cut off a moment ago may have to ask for its neighbour's address again,
	// which is done once a second.
	reaches := func(from, to *Member, want bool) bool {
		for range 20 {
			if answered(t, from, to, 3) > 0 {
				return true
			}
			if !want {
				break
			}
		}
		return false
	}
	for name, tc := range map[string]struct {
		fault func()
		cut   [][2]*Member
	}{
		"no fault":                  {func() {}, nil},
		"one member alone":          {func() { network.Partition(a) }, [][2]*Member{{a, b}, {b, a}, {a, c}, {c, a}}},
		"two members together":      {func() { network.Partition(a, b) }, [][2]*Member{{a, c}, {c, a}, {b, c}, {c, b}}},
		"one way: question dropped": {func() { network.Cut(a, b) }, [][2]*Member{{a, b}, {b, a}}},
		"a cable taken out":         {func() { network.Unplug(b) }, [][2]*Member{{a, b}, {b, a}, {b, c}, {c, b}}},
		"all packets lost":          {func() { network.Lose(c, 100) }, [][2]*Member{{a, c}, {c, a}, {b, c}, {c, b}}},
	} {
		t.Run(name, func(t *testing.T) {
			defer network.Heal()
			tc.fault()
			for _, from := range members {
				for _, to := range members {
					if want := !slices.Contains(tc.cut, [2]*Member{from, to}); from != to && reaches(from, to, want) != want {
						t.Errorf("member %d reaches %d: %v; want %v", from.cable, to.cable, !want, want)
					}
				}
			}
		})
	}
	t.Run("some packets lost", func(t *testing.T) {
		defer network.Heal()
		network.Lose(a, 30)
		// Half of them: the question may be lost, and the answer.
		if got := answered(t, a, b, 100); got < 20 || got > 80 {
			t.Errorf("%d of 100 packets were answered; want about 49", got)
		}
	})
	t.Run("all is well after it", func(t *testing.T) {
		if got := answered(t, a, b, 20); got != 20 {
			t.Errorf("%d of 20 packets were answered; want all", got)
		}
	})
	t.Run("the machine sees nothing of it", func(t *testing.T) {
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if link.Name == bridgeName || strings.HasPrefix(link.Name, "port") {
				t.Errorf("the machine has a link %s", link.Name)
			}
		}
	})
}

func TestADiskThatIsFull(t *testing.T) {
	m := Start(t, Options{NoInit: true, Network: NewNetwork(t), Disk: 64 << 20})
	writesAreTaken(t, m)
	probe := filepath.Join(m.Dir, "probe")
	for deadline := time.Now().Add(time.Minute); ; {
		m.FillDisk()
		err := os.WriteFile(probe, make([]byte, 1<<16), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		// The daemon gives up what it kept for this, once for each log.
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("writing to a full disk: %v; want ENOSPC", err)
		}
		if err := os.Remove(probe); err != nil {
			t.Fatal(err)
		}
	}
	m.FreeDisk()
	if err := os.WriteFile(probe, make([]byte, 1<<16), 0o600); err != nil {
		t.Errorf("writing to a disk with room: %v", err)
	}
	writesAreTaken(t, m)
	// What is kept for a full disk is there again, and leaves room for writes.
	for _, log := range []string{"database", "raft"} {
		reserve := filepath.Join(m.Dir, log, "reserve")
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if info, err := os.Stat(reserve); err == nil && info.Size() > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not written a minute after there was room", reserve)
			}
		}
	}
	writesAreTaken(t, m)
}

// writesAreTaken waits until the member takes a write that needs room.
func writesAreTaken(t *testing.T, m *Member) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := m.Do(t.Context(), http.MethodPut, "/1.0/profiles/default", map[string]any{"config": map[string]string{}, "devices": map[string]any{}})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no write is taken within a minute: %v", err)
		}
	}
}

func TestAPausedDaemonAnswersLater(t *testing.T) {
	m := Start(t, Options{NoInit: true})
	m.Pause()
	answers := make(chan error, 1)
	go func() { answers <- m.Get(t.Context(), "/1.0", &struct{}{}) }()
	select {
	case err := <-answers:
		t.Errorf("a paused daemon answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	m.Resume()
	if err := <-answers; err != nil {
		t.Errorf("after it went on: %v", err)
	}
}

// A lab that was killed leaves daemons and mounts; the next one finds them by the
// number of the process that is no more.
func TestWhatADeadLabLeftIsRemoved(t *testing.T) {
	NeedsRoot(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), prefix+strconv.Itoa(gone.Process.Pid)+"-1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("sleep", "300")
	daemon.Env = []string{"MUSTER_DIR=" + dir}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	sweeping = sync.Once{}
	sweep(t)
	var exit *exec.ExitError
	if err := daemon.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the daemon ended with %v; want it killed", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v; want it gone", err)
	}
}
