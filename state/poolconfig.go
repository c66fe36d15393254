package state

import "slices"

// PoolDrivers are the storage drivers, the default first. Their configuration
// keys are node/storage's to know, for each driver has its own.
var PoolDrivers = []string{"overlay", "dir", "btrfs"}

// unsupportedDrivers are those that LXD knows and muster does not.
var unsupportedDrivers = []string{"ceph", "cephfs", "cephobject", "lvm", "powerflex", "zfs"}

// ValidatePoolDriver says whether a storage driver exists.
func ValidatePoolDriver(driver string) error {
	switch {
	case slices.Contains(PoolDrivers, driver):
		return nil
	case slices.Contains(unsupportedDrivers, driver):
		return Errorf(ErrInvalid, "driver %q is not supported by muster: use overlay, dir or btrfs", driver)
	}
	return unknown("driver", driver, PoolDrivers)
}
