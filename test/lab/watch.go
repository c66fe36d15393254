package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call of a daemon on the files of its logs: the Nth of that name.
type Call struct {
	Name string
	Nth  int
}

// String says which call it is.
func (c Call) String() string { return fmt.Sprintf("%s %d", c.Name, c.Nth) }

// Watch is a daemon whose calls on the files of its logs wait until they were counted, so
// that it can be killed at any of them. (strace counts the calls of each thread by itself,
// and Go's threads come and go: most calls can't be named that way.) It is a seccomp filter,
// whose answers are given here.
type Watch struct {
	dir      string
	daemon   int
	listener int
	ended    chan struct{}
	// reap waits for a program that nobody else waits for.
	reap func()

	mu     sync.Mutex
	target Call
	counts map[string]int
	// killed is the call at which the daemon was killed, and on what.
	killed string
	// lost are the writes that were not flushed when the daemon was killed, oldest first.
	lost []unflushed
}

// unflushed is a write that a power cut may take: what was there before.
type unflushed struct {
	path       string
	at, length int64
	before     []byte
	size       int64
}

// NeedsWatching skips the test by name where a program's system calls can't be filtered.
func NeedsWatching(t T) {
	t.Helper()
	cmd, talk, err := watched(t, "true")
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_ = talk.theirs.Close()
		var listener int
		if listener, err = talk.receive(); err == nil {
			_ = unix.Close(listener)
		}
		_ = cmd.Wait() // nobody answers it
	}
	if err != nil {
		t.Skip(fmt.Sprintf("needs to filter system calls as seccomp user notifications: %v", err))
	}
}

// talk is how a watched program hands over its listener.
type talk struct{ ours, theirs *os.File }

var buildingWatched sync.Once

// watched prepares a program whose calls wait.
func watched(t T, program string, args ...string) (*exec.Cmd, talk, error) {
	root := moduleRoot(t)
	helper := filepath.Join(root, "bin", "watched")
	buildingWatched.Do(func() {
		build := exec.Command("go", "build", "-o", helper, "./test/lab/watched")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build test/lab/watched: %v\n%s", err, out)
		}
	})
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, talk{}, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, talk{}, err
	}
	var numbers []string
	for _, name := range slices.Sorted(maps.Keys(callNumbers)) {
		numbers = append(numbers, fmt.Sprint(callNumbers[name]))
	}
	between := talk{ours: os.NewFile(uintptr(fds[0]), "ours"), theirs: os.NewFile(uintptr(fds[1]), "theirs")}
	cmd := exec.Command(helper, append([]string{strings.Join(numbers, ","), path}, args...)...)
	cmd.ExtraFiles = []*os.File{between.theirs}
	return cmd, between, nil
}

// receive takes the listener over.
func (t talk) receive() (listener int, err error) {
	defer func() { _ = t.ours.Close() }()
	conn, err := net.FileConn(t.ours)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) == 0 {
		return 0, errors.Join(err, errors.New("the program ended before it was watched"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// LaunchedWatched starts the daemon as Launched does. It is killed when it is about to do the
// call, or at that which Arm names later.
func (m *Member) LaunchedWatched(call Call) *Watch {
	m.t.Helper()
	w, err := m.launchWatched(call)
	if err != nil {
		m.t.Fatal(err)
	}
	return w
}

func (m *Member) launchWatched(call Call) (*Watch, error) {
	cmd, between, err := watched(m.t, filepath.Join(m.Bin, "musterd"), m.options.Args...)
	if err != nil {
		return nil, err
	}
	return watch(m.Dir, call, cmd, between, func() error { return m.launchAs(cmd) })
}

// WatchProgram starts a program of a test whose logs are in dir, as LaunchedWatched does with a
// daemon. What it writes comes out of out.
func WatchProgram(t T, dir string, call Call, environment []string, program string, args ...string) (w *Watch, out io.Reader, err error) {
	t.Helper()
	cmd, between, err := watched(t, program, args...)
	if err != nil {
		return nil, nil, err
	}
	cmd.Env, cmd.Stderr = append(os.Environ(), environment...), os.Stderr
	if out, err = cmd.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	if w, err = watch(dir, call, cmd, between, cmd.Start); err == nil {
		w.reap = sync.OnceFunc(func() { _ = cmd.Wait() }) // how it ended, the caller reads
	}
	return w, out, err
}

func watch(dir string, call Call, cmd *exec.Cmd, between talk, start func() error) (*Watch, error) {
	if err := start(); err != nil {
		return nil, err
	}
	_ = between.theirs.Close()
	w := &Watch{dir: dir, daemon: cmd.Process.Pid, ended: make(chan struct{}), reap: func() {}, target: call, counts: map[string]int{}}
	var err error
	if w.listener, err = between.receive(); err != nil {
		return nil, err
	}
	go w.answer()
	return w, nil
}

// Arm has the daemon killed at that call, counted from now.
func (w *Watch) Arm(call Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target, w.counts = call, map[string]int{}
}

// Counts waits for the daemon's end, and returns how many calls of each name it did.
func (w *Watch) Counts() map[string]int {
	<-w.ended
	w.reap()
	return w.counts
}

// Killed waits for the daemon's end, and says at which call it was killed, or "".
func (w *Watch) Killed() string {
	<-w.ended
	w.reap()
	return w.killed
}

// notification and response are struct seccomp_notif and struct seccomp_notif_resp.
type notification struct {
	id          uint64
	pid, flags  uint32
	number      int32
	arch        uint32
	instruction uint64
	args        [6]uint64
}

type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// answer lets calls go on until nothing is left of the daemon and its children.
func (w *Watch) answer() {
	defer close(w.ended)
	defer func() { _ = unix.Close(w.listener) }()
	names := map[int]string{}
	for name, number := range callNumbers {
		names[number] = name
	}
	for {
		poll := []unix.PollFd{{Fd: int32(w.listener), Events: unix.POLLIN}} //nolint:gosec // a file descriptor
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
				return
			}
			continue
		}
		var asked notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
			continue // it was interrupted, or is gone
		}
		if !w.allows(names[int(asked.number)], asked) {
			_ = syscall.Kill(w.daemon, syscall.SIGKILL)
			continue
		}
		let := response{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(w.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&let)))
	}
}

// allows counts a call, and keeps what a write is about to replace.
func (w *Watch) allows(name string, asked notification) bool {
	path, writes := w.look(name, asked)
	if path == "" || w.killed != "" {
		return w.killed == ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[name]++
	if w.target.Name == name && w.counts[name] == w.target.Nth {
		w.killed = fmt.Sprintf("%s %d of %s", name, w.target.Nth, strings.TrimPrefix(path, w.dir+"/"))
		return false
	}
	w.lost = append(w.lost, writes...)
	switch name {
	case "fsync", "fdatasync":
		w.lost = slices.DeleteFunc(w.lost, func(u unflushed) bool { return u.path == path })
	case "io_getevents":
		// Whoever asks learns that the node's own writes, which are flushed ones, are done.
		w.lost = slices.DeleteFunc(w.lost, func(u unflushed) bool { return strings.HasPrefix(filepath.Base(u.path), "open-") })
	}
	return true
}

// look returns which file of the logs a call is about, or "", and what it is to write.
func (w *Watch) look(name string, asked notification) (path string, writes []unflushed) {
	ours := func(path string) string {
		for _, log := range []string{"database", "raft"} {
			if of := filepath.Join(w.dir, log); path == of || strings.HasPrefix(path, of+"/") || strings.HasPrefix(path, of+".") {
				return path
			}
		}
		return ""
	}
	file := func(fd uint64) string {
		path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", asked.pid, int32(fd))) //nolint:gosec // a file descriptor
		return ours(path)
	}
	write := func(path string, at, length int64) {
		if path != "" {
			writes = append(writes, before(path, at, length))
		}
	}
	args := asked.args
	switch name {
	case "write":
		if path = file(args[0]); path != "" {
			write(path, position(asked.pid, args[0]), int64(args[2])) //nolint:gosec // a length
		}
	case "pwrite64":
		path = file(args[0])
		write(path, int64(args[3]), int64(args[2])) //nolint:gosec // a length
	case "writev", "pwritev", "pwritev2", "fallocate", "ftruncate", "fsync", "fdatasync":
		path = file(args[0])
	case "io_submit":
		// struct iocb: the operation at 16, the file at 20, the buffer at 24, its length at 32,
		// the offset at 40; the buffer of a vectored write is a list of them.
		for _, control := range words(memory(asked.pid, args[2], 8*args[1])) {
			iocb := memory(asked.pid, control, 64)
			if len(iocb) < 64 {
				continue
			}
			length := binary.LittleEndian.Uint64(iocb[32:])
			if vectored := binary.LittleEndian.Uint16(iocb[16:]) == 8; vectored {
				vectors := words(memory(asked.pid, binary.LittleEndian.Uint64(iocb[24:]), 16*length))
				length = 0
				for i := 1; i < len(vectors); i += 2 {
					length += vectors[i]
				}
			}
			if of := file(uint64(binary.LittleEndian.Uint32(iocb[20:]))); of != "" {
				path = of
				write(of, int64(binary.LittleEndian.Uint64(iocb[40:])), int64(length)) //nolint:gosec // a length
			}
		}
	case "io_getevents":
		path = filepath.Join(w.dir, "database") // nobody else does this
	case "open", "rename", "unlink", "mkdir", "rmdir":
		path = ours(text(asked.pid, args[0]))
		if name == "open" && args[1]&(unix.O_CREAT|unix.O_TRUNC) == 0 {
			path = ""
		}
	case "openat", "renameat", "renameat2", "unlinkat", "mkdirat":
		path = ours(text(asked.pid, args[1]))
		if name == "openat" && args[2]&(unix.O_CREAT|unix.O_TRUNC) == 0 {
			path = ""
		}
	}
	return path, writes
}

// before keeps what a write is about to replace.
func before(path string, at, length int64) unflushed {
	kept := unflushed{path: path, at: at, length: length}
	if file, err := os.Open(path); err == nil {
		if info, err := file.Stat(); err == nil {
			kept.size = info.Size()
		}
		kept.before = make([]byte, max(0, min(length, kept.size-at)))
		_, _ = file.ReadAt(kept.before, at) // what can't be read is zeros
		_ = file.Close()
	}
	return kept
}

// position is where a file is written next.
func position(pid uint32, fd uint64) (at int64) {
	info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	_, _ = fmt.Sscanf(string(info), "pos: %d", &at)
	return at
}

// memory reads from a process.
func memory(pid uint32, at, length uint64) []byte {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	read := make([]byte, min(length, 1<<16))
	n, _ := file.ReadAt(read, int64(at)) //nolint:gosec // an address
	return read[:n]
}

func words(b []byte) (list []uint64) {
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, binary.LittleEndian.Uint64(b))
	}
	return list
}

// text reads a path from a process.
func text(pid uint32, at uint64) string {
	read := memory(pid, at, 4096-at%4096) // not into the next page, which may not be there
	whole, _, ended := bytes.Cut(read, []byte{0})
	if !ended {
		more, _, _ := bytes.Cut(memory(pid, at+uint64(len(read)), 4096), []byte{0})
		whole = append(slices.Clone(whole), more...)
	}
	return string(whole)
}

// LosePower takes back what the daemon wrote and had not flushed when it was killed, as a
// power cut does: all of it, or of each write the second half. It returns how many writes
// were hit.
func (w *Watch) LosePower(half bool) (count int, err error) {
	<-w.ended
	for _, u := range slices.Backward(w.lost) {
		file, openErr := os.OpenFile(u.path, os.O_WRONLY, 0)
		if openErr != nil {
			continue // it had another name by then, or none any more
		}
		from := int64(0)
		if half {
			// Sectors are whole.
			from = u.length / 2 &^ 511
		}
		if from < int64(len(u.before)) {
			_, writeErr := file.WriteAt(u.before[from:], u.at+from)
			err = errors.Join(err, writeErr)
		}
		if end := max(u.size, u.at+from); u.at+u.length > u.size {
			err = errors.Join(err, file.Truncate(end))
		}
		err = errors.Join(err, file.Close())
		count++
	}
	return count, err
}
