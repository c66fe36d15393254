package image

import "os"

// What the busybox image holds besides busybox.

var busyboxDirs = map[string]os.FileMode{
	"bin": 0o755, "sbin": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "etc/init.d": 0o755, "etc/udhcpc": 0o755,
	"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "var/log": 0o755, "var/tmp": os.ModeSticky | 0o777, "tmp": os.ModeSticky | 0o777, "mnt": 0o755,
	"root": 0o700, "home": 0o755, "lib": 0o755,
}

var busyboxFiles = map[string]struct {
	text string
	mode os.FileMode
}{
	"etc/inittab": {`::sysinit:/etc/init.d/rcS
console::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/rcK
::restart:/sbin/init
`, 0o644},
	"etc/init.d/rcS": {`#!/bin/sh
# Brings up what a system container needs; nothing here waits.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
rm -rf /run/*
[ -e /proc/self ] || mount -t proc proc /proc
[ -d /sys/class ] || mount -t sysfs sysfs /sys
[ -e /dev/pts/ptmx ] || { mkdir -p /dev/pts && mount -t devpts devpts /dev/pts; } 2>/dev/null
[ -s /etc/hostname ] && hostname -F /etc/hostname 2>/dev/null
ip link set lo up
for nic in /sys/class/net/eth*; do
  [ -e "$nic" ] || continue
  nic=${nic##*/}
  ip link set "$nic" up
  udhcpc -i "$nic" -b -t 8 -T 1 -A 2 -s /etc/udhcpc/script -p "/run/udhcpc.$nic" -x hostname:"$(hostname)" >/dev/null 2>&1 &
done
exit 0
`, 0o755},
	// busybox init runs this for SIGPWR, SIGUSR1 and SIGUSR2 (halt) and SIGTERM
	// (reboot), and would then sleep for two seconds.
	"etc/init.d/rcK": {`#!/bin/sh
# Ends what runs and halts at once, or reboots if /sbin/reboot asked for it.
trap '' TERM HUP INT
how=halt
[ -e /run/reboot ] && how=reboot
kill -TERM -1
tries=0
while set -- /proc/[0-9]*; [ $# -gt 2 ] && [ $tries -lt 100 ]; do
  tries=$((tries + 1))
  sleep 0.01
done
kill -KILL -1
# Not synced first: that would wait for all disks of the host.
exec /bin/busybox $how -n -f
`, 0o755},
	"sbin/reboot": {`#!/bin/sh
# init runs the same shutdown actions for halt and reboot; this tells them apart.
[ "$1" = -f ] && exec /bin/busybox reboot "$@"
: >/run/reboot
kill -TERM 1
`, 0o755},
	"etc/udhcpc/script": {`#!/bin/sh
# Called by udhcpc: see udhcpc(8).
case "$1" in
deconfig)
  ip -4 addr flush dev "$interface"
  ip link set "$interface" up
  ;;
bound | renew)
  # A renewed lease must not disturb what is connected.
  if ! ip -4 addr show dev "$interface" | grep -q "inet $ip/"; then
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" broadcast + dev "$interface"
  fi
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

// nameTemplates give a container its own name.
var nameTemplates = map[string]string{
	"hostname.tpl": "{{ container.name }}\n",
	"hosts.tpl":    "127.0.0.1 localhost\n127.0.1.1 {{ container.name }}\n::1 localhost ip6-localhost\n",
}
