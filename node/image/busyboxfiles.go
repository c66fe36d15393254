package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"muster/state"
)

// What the busybox image holds besides busybox.

var busyboxDirs = map[string]os.FileMode{
	"bin": 0o755, "sbin": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "etc/init.d": 0o755, "etc/udhcpc": 0o755,
	"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "var/log": 0o755, "var/tmp": 0o1777, "tmp": 0o1777, "mnt": 0o755,
	"root": 0o700, "home": 0o755, "lib": 0o755,
}

var busyboxFiles = map[string]struct {
	text string
	mode os.FileMode
}{
	"etc/inittab": {`::sysinit:/etc/init.d/rcS
console::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
::restart:/sbin/init
`, 0o644},
	"etc/init.d/rcS": {`#!/bin/sh
# Brings up what a system container needs; nothing here waits.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e /proc/self ] || mount -t proc proc /proc
[ -s /etc/hostname ] && hostname -F /etc/hostname 2>/dev/null
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -b -S -t 8 -T 1 -A 2 -s /etc/udhcpc/script -p /run/udhcpc.eth0 -x hostname:"$(hostname)" >/dev/null 2>&1 &
fi
exit 0
`, 0o755},
	"etc/udhcpc/script": {`#!/bin/sh
# Called by udhcpc: see udhcpc(8).
case "$1" in
deconfig)
  ip addr flush dev "$interface"
  ip link set "$interface" up
  ;;
bound | renew)
  ip addr flush dev "$interface"
  ip addr add "$ip/${mask:-24}" dev "$interface"
  for gateway in $router; do
    ip route replace default via "$gateway" dev "$interface"
    break
  done
  {
    [ -n "$domain" ] && echo "search $domain"
    for server in $dns; do echo "nameserver $server"; done
  } >/etc/resolv.conf
  ;;
esac
exit 0
`, 0o755},
	"etc/passwd":        {"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644},
	"etc/group":         {"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n", 0o644},
	"etc/shadow":        {"root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n", 0o600},
	"etc/nsswitch.conf": {"passwd: files\ngroup: files\nhosts: files dns\n", 0o644},
	"etc/profile":       {"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PS1='\\u@\\h:\\w\\$ '\n", 0o644},
	"etc/hostname":      {"busybox\n", 0o644},
	"etc/hosts":         {"127.0.0.1 localhost\n::1 localhost\n", 0o644},
	"etc/resolv.conf":   {"", 0o644},
	"etc/os-release":    {"NAME=busybox\nID=busybox\nPRETTY_NAME=\"Busybox\"\n", 0o644},
}

var busyboxTemplates = map[string]string{
	"hostname.tpl": "{{ container.name }}\n",
	"hosts.tpl":    "127.0.0.1 localhost\n127.0.1.1 {{ container.name }}\n::1 localhost ip6-localhost\n",
}

// packTo writes one half of a split image: the metadata with the templates, or
// the root file system with its top as the tarball's.
func packTo(ctx context.Context, name string, spec PublishSpec, metadata bool) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	compressed, err := compress(ctx, file, spec.Compression)
	if err != nil {
		return err
	}
	p := &packing{tar: tar.NewWriter(compressed), seen: map[inode]string{}}
	if metadata {
		err = p.metadata(ctx, spec)
	} else {
		err = p.tree(ctx, spec.RootFS, ".", spec.IDs)
	}
	if err == nil {
		err = p.tar.Close()
	}
	return errors.Join(err, compressed.Close())
}

// makeSquashfs packs a directory as a squashfs.
func makeSquashfs(ctx context.Context, dir, target string, at time.Time) error {
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return state.Errorf(state.ErrConflict, "mksquashfs is not installed: \"apt-get install squashfs-tools\"")
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	out, err := exec.CommandContext(ctx, program, dir, target, "-noappend", "-all-root", "-quiet", "-no-progress",
		"-mkfs-time", seconds, "-all-time", seconds).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a squashfs: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
