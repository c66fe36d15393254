package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// startDnsmasq runs the network's DHCP and DNS server, unless it runs with this
// very configuration already: it outlives the daemon.
func (n *Networks) startDnsmasq(ctx context.Context, p *plan) error {
	if !p.dnsmasq() {
		return n.stopDnsmasq(ctx, p.name)
	}
	config := n.dnsmasqConfig(p)
	path := n.confPath(p.name)
	if current, err := os.ReadFile(path); err == nil && bytes.Equal(current, config) && n.dnsmasqPID(p.name) != 0 {
		return nil
	}
	if err := n.stopDnsmasq(ctx, p.name); err != nil {
		return err
	}
	if err := n.dropForeign(p); err != nil {
		return err
	}
	if err := os.WriteFile(path, config, 0o644); err != nil {
		return err
	}
	program, err := exec.LookPath("dnsmasq")
	if err != nil {
		return state.Errorf(state.ErrConflict, "dnsmasq is not installed: \"apt-get install dnsmasq-base\", or set ipv4.address and ipv6.address to none")
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for tries := 0; ; tries++ {
		// Dnsmasq puts itself into the background once it is ready, and so returns.
		cmd := exec.CommandContext(ctx, program, "--conf-file="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		// One that was killed keeps its sockets for a moment after its process can no
		// longer be told from others.
		if cmd.ProcessState.ExitCode() == exitNetwork && tries < addressTries && ctx.Err() == nil {
			time.Sleep(addressPause)
			continue
		}
		return state.Errorf(state.ErrConflict, "start dnsmasq: %w: %s", err, strings.TrimSpace(string(out)))
	}
}

// Dnsmasq ends so when it can't have its addresses (dnsmasq(8), EXIT CODES), and is
// then tried again so often.
const (
	exitNetwork  = 2
	addressTries = 10
	addressPause = 50 * time.Millisecond
)

// dnsmasqConfig is the server's configuration file.
func (n *Networks) dnsmasqConfig(p *plan) []byte {
	var out bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# Made by muster for network %s; changes are lost.", p.name)
	line("pid-file=%s", n.path(p.name, "dnsmasq.pid"))
	line("dhcp-leasefile=%s", n.path(p.name, "leases"))
	line("dhcp-hostsdir=%s", n.path(p.name, reservationDir))
	line("no-hosts")
	line("strict-order")
	line("bind-interfaces")
	line("except-interface=lo")
	line("interface=%s", p.name)
	for _, prefix := range []netip.Prefix{p.v4, p.v6} {
		if prefix.IsValid() {
			line("listen-address=%s", prefix.Addr())
		}
	}
	domain := p.config["dns.domain"]
	if domain == "" {
		domain = "lxd"
	}
	if p.config["dns.mode"] == "none" {
		line("port=0")
	} else {
		line("domain=%s", domain)
		line("local=/%s/", domain)
		line("domain-needed")
		if p.managedNames() {
			line("dhcp-ignore-names")
		}
	}
	line("dhcp-authoritative")
	// Without these a container would wait seconds for its address: addresses
	// here are only ever handed out by us.
	line("no-ping")
	line("dhcp-rapid-commit")
	expiry := func(key string) string {
		if p.config[key] != "" {
			return p.config[key]
		}
		return "1h"
	}
	if p.v4DHCP {
		for _, span := range ranges(p.config["ipv4.dhcp.ranges"], p.v4) {
			line("dhcp-range=%s,%s,%s", span[0], span[1], expiry("ipv4.dhcp.expiry"))
		}
		if gateway := p.config["ipv4.dhcp.gateway"]; gateway != "" {
			line("dhcp-option=option:router,%s", gateway)
		}
		if p.mtu != defaultMTU {
			line("dhcp-option=option:mtu,%d", p.mtu)
		}
		if search := p.search(); search != "" {
			line("dhcp-option=option:domain-search,%s", search)
		}
	}
	if p.v6.IsValid() {
		line("enable-ra")
		if search := p.search(); search != "" {
			line("dhcp-option=option6:domain-search,%s", search)
		}
		stateful, _ := state.ParseBool(p.config["ipv6.dhcp.stateful"])
		switch {
		case p.v6DHCP && stateful:
			for _, span := range ranges(p.config["ipv6.dhcp.ranges"], p.v6) {
				line("dhcp-range=%s,%s,%d,%s", span[0], span[1], p.v6.Bits(), expiry("ipv6.dhcp.expiry"))
			}
		case p.v6DHCP:
			line("dhcp-range=::,constructor:%s,ra-stateless,ra-names", p.name)
		default:
			line("dhcp-range=::,constructor:%s,ra-only", p.name)
		}
	}
	if raw := p.config["raw.dnsmasq"]; raw != "" {
		line("%s", raw)
	}
	return out.Bytes()
}

// managedNames says that instances are known by their own names, whatever the guests call
// themselves.
func (p *plan) managedNames() bool { return p.config["dns.mode"] != "dynamic" }

// search are the domains that guests look names up in, separated by commas; dnsmasq tells
// them of its own domain unless it is given others.
func (p *plan) search() string {
	return strings.Join(strings.FieldsFunc(p.config["dns.search"], func(r rune) bool { return r == ',' || r == ' ' }), ",")
}

// ranges are the addresses to hand out: the given ones, or all but the network's,
// ours and the broadcast address.
func ranges(config string, subnet netip.Prefix) [][2]string {
	var list [][2]string
	for span := range strings.SplitSeq(config, ",") {
		if first, last, ok := strings.Cut(strings.TrimSpace(span), "-"); ok {
			list = append(list, [2]string{first, last})
		}
	}
	if len(list) > 0 {
		return list
	}
	own := subnet.Addr()
	first := subnet.Masked().Addr().Next()
	if first == own {
		first = first.Next()
	}
	bytes := subnet.Masked().Addr().AsSlice()
	for i := subnet.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	last = last.Prev()
	if last == own {
		last = last.Prev()
	}
	return [][2]string{{first.String(), last.String()}}
}

// dnsmasqPID is the process of the network's server, or zero when it does not
// run. The pid file alone proves nothing: the number may be another's by now.
func (n *Networks) dnsmasqPID(network string) int {
	data, err := os.ReadFile(n.path(network, "dnsmasq.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	if !n.isServer(pid, network) {
		return 0
	}
	return pid
}

func (n *Networks) confPath(network string) string { return n.path(network, "dnsmasq.conf") }

// isServer reports whether the process runs with the network's configuration.
func (n *Networks) isServer(pid int, network string) bool {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && bytes.Contains(cmdline, []byte("--conf-file="+n.confPath(network)+"\x00"))
}

// servers are all processes that run with the network's configuration. A daemon that was
// killed while it started one may have left it without a pid file.
func (n *Networks) servers(network string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && n.isServer(pid, network) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// stopDnsmasq ends the network's server and waits until it has.
func (n *Networks) stopDnsmasq(ctx context.Context, network string) error {
	pids, err := n.servers(network)
	if err != nil {
		return fmt.Errorf("find dnsmasq: %w", err)
	}
	for _, pid := range pids {
		if err := n.endServer(ctx, pid, network); err != nil {
			return fmt.Errorf("stop dnsmasq: %w", err)
		}
	}
	err = os.Remove(n.path(network, "dnsmasq.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (n *Networks) endServer(ctx context.Context, pid int, network string) error {
	// A pidfd can't be mistaken for another process that got the number.
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !n.isServer(pid, network) {
		return nil
	}
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if gone(ctx, fd, 3*time.Second) {
			return nil
		}
	}
	return nil
}

// gone waits until the process behind a pidfd has ended.
func gone(ctx context.Context, fd int, within time.Duration) bool {
	deadline := time.Now().Add(within)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if count, err := unix.Poll(poll, 100); err == nil && count == 1 {
			return true
		}
	}
	return false
}

func (n *Networks) reload(network string) {
	if pid := n.dnsmasqPID(network); pid != 0 {
		_ = unix.Kill(pid, unix.SIGHUP)
	}
}
