package cgroup

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isGone says that the group was removed while a file of it was open.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) }

// isBusy says that the group uses more than it would be allowed.
func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) }

// isInvalid says that the kernel does not take the value: a processor that does
// not exist, a number out of range.
func isInvalid(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EACCES)
}
