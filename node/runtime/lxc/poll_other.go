//go:build !amd64

package lxc

import "golang.org/x/sys/unix"

// pollCall is the number of ppoll(2): newer architectures have no poll(2) of their own.
const pollCall = unix.SYS_PPOLL
