package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
)

// ProxyRequest is what a proxy helper is given, as JSON.
type ProxyRequest struct {
	// Run is the container's run directory.
	Run   string
	Proxy runtime.Proxy
	// IDMap is the container's, or nil.
	IDMap *runtime.IDMap
}

// Proxies is the folder in a run directory with a file for each proxy: its
// request, locked by the helper as long as it lives.
const Proxies = "proxies"

// ProxyFile is the path of a proxy's file. The name is a device's, which may
// hold nearly anything, so it is written in hexadecimal.
func ProxyFile(run, name string) string {
	return filepath.Join(run, Proxies, fmt.Sprintf("%x", name))
}

// Lock takes the record lock of a file; false when another process holds it. The
// lock lasts until the file is closed, in this process, by anybody.
func Lock(file *os.File) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}
