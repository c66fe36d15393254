package machine

import (
	"os"
	"path/filepath"
	"strings"

	"muster/rpc/rest/api"
)

// sector is the unit of sizes in /sys/block, whatever the device's own is.
const sector = 512

// disks reads /sys/class/block: what has a device behind it and a size.
func disks(root string) api.ResourcesStorage {
	result := api.ResourcesStorage{Disks: []api.ResourcesStorageDisk{}}
	base := root + "/sys/class/block"
	ids := byDevice(root, "dev/disk/by-id")
	paths := byDevice(root, "dev/disk/by-path")
	for _, name := range names(base) {
		dir := base + "/" + name
		size := count(dir, "size") * sector
		if !exists(dir, "device") || exists(dir, "partition") || size == 0 {
			continue
		}
		disk := api.ResourcesStorageDisk{
			ID: name, Device: read(dir, "dev"), Size: size, Type: diskType(dir, name),
			Model: read(dir, "device/model"), Serial: read(dir, "device/serial"), WWN: first(read(dir, "wwid"), read(dir, "device/wwid")),
			FirmwareVersion: first(read(dir, "device/firmware_rev"), read(dir, "device/rev")),
			ReadOnly:        count(dir, "ro") == 1, Removable: count(dir, "removable") == 1,
			BlockSize: count(dir, "queue/physical_block_size"), RPM: rotation(dir),
			NUMANode: node(dir + "/device"), DeviceID: ids[name], DevicePath: paths[name],
			PCIAddress: pciAbove(dir + "/device"),
			Partitions: partitions(dir, name),
		}
		result.Disks = append(result.Disks, disk)
		result.Total += 1 + uint64(len(disk.Partitions))
	}
	return result
}

func partitions(dir, disk string) []api.ResourcesStorageDiskPartition {
	found := []api.ResourcesStorageDiskPartition{}
	for _, name := range names(dir) {
		n, ok := number(dir, name, "partition")
		if !ok || !strings.HasPrefix(name, disk) {
			continue
		}
		found = append(found, api.ResourcesStorageDiskPartition{
			ID: name, Device: read(dir, name, "dev"), ReadOnly: count(dir, name, "ro") == 1,
			Size: count(dir, name, "size") * sector, Partition: n,
		})
	}
	return found
}

// diskType is the bus that the disk hangs on.
func diskType(dir, name string) string {
	switch subsystem := link(dir, "device/subsystem"); {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "sr"):
		return "cdrom"
	default:
		return subsystem
	}
}

// rotation is 1 for disks that turn: the kernel does not say how fast.
func rotation(dir string) uint64 { return count(dir, "queue/rotational") }

// byDevice reads a directory of links to devices, such as /dev/disk/by-id.
func byDevice(root, dir string) map[string]string {
	found := map[string]string{}
	for _, name := range names(root, dir) {
		device := link(root, dir, name)
		if _, known := found[device]; !known {
			found[device] = name
		}
	}
	return found
}

// pciAbove is the address of the nearest PCI device above a device, or "".
func pciAbove(device string) string {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return ""
	}
	for ; len(real) > 1; real = filepath.Dir(real) {
		if link(real, "subsystem") == "pci" {
			return filepath.Base(real)
		}
	}
	return ""
}

func exists(parts ...string) bool {
	_, err := os.Lstat(filepath.Join(parts...))
	return err == nil
}

// first returns the first value that is not empty.
func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}
