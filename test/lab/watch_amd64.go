package lab

import "golang.org/x/sys/unix"

// callNumbers are the system calls that change files.
var callNumbers = map[string]int{
	"write": unix.SYS_WRITE, "pwrite64": unix.SYS_PWRITE64, "writev": unix.SYS_WRITEV, "pwritev": unix.SYS_PWRITEV, "pwritev2": unix.SYS_PWRITEV2,
	"io_submit": unix.SYS_IO_SUBMIT, "io_getevents": unix.SYS_IO_GETEVENTS, "fallocate": unix.SYS_FALLOCATE,
	"ftruncate": unix.SYS_FTRUNCATE, "fsync": unix.SYS_FSYNC, "fdatasync": unix.SYS_FDATASYNC, "openat": unix.SYS_OPENAT,
	"renameat": unix.SYS_RENAMEAT, "renameat2": unix.SYS_RENAMEAT2, "unlinkat": unix.SYS_UNLINKAT, "mkdirat": unix.SYS_MKDIRAT,
	"open": unix.SYS_OPEN, "rename": unix.SYS_RENAME, "unlink": unix.SYS_UNLINK, "mkdir": unix.SYS_MKDIR, "rmdir": unix.SYS_RMDIR,
}
