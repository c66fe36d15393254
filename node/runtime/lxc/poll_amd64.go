package lxc

import "golang.org/x/sys/unix"

// pollCall is the number of poll(2).
const pollCall = unix.SYS_POLL
