package machine

import (
	"strconv"
	"strings"

	"muster/rpc/rest/api"
)

// pcis reads /sys/bus/pci/devices. Vendors and products are numbers here: their
// names are in a file of another package, which may be missing or old.
func pcis(root string) api.ResourcesPCI {
	result := api.ResourcesPCI{Devices: []api.ResourcesPCIDevice{}}
	base := root + "/sys/bus/pci/devices"
	for _, address := range names(base) {
		dir := base + "/" + address
		group, _ := strconv.ParseUint(link(dir, "iommu_group"), 10, 64)
		result.Devices = append(result.Devices, api.ResourcesPCIDevice{
			PCIAddress: address, Driver: link(dir, "driver"), DriverVersion: read(dir, "driver/module/version"),
			VendorID: id(dir, "vendor"), ProductID: id(dir, "device"), NUMANode: node(dir), IOMMUGroup: group,
		})
	}
	result.Total = uint64(len(result.Devices))
	return result
}

// id reads a PCI identity, "0x8086", without its 0x.
func id(dir, file string) string { return strings.TrimPrefix(read(dir, file), "0x") }

// gpus are the PCI devices behind /sys/class/drm.
func gpus(root string) api.ResourcesGPU {
	result := api.ResourcesGPU{Cards: []api.ResourcesGPUCard{}}
	base := root + "/sys/class/drm"
	for _, name := range names(base) {
		if _, ok := numbered(name, "card"); !ok {
			continue // connectors are card0-HDMI-A-1 and the like
		}
		dir := base + "/" + name + "/device"
		result.Cards = append(result.Cards, api.ResourcesGPUCard{
			Driver: link(dir, "driver"), DriverVersion: read(dir, "driver/module/version"), NUMANode: node(dir),
			PCIAddress: pciAbove(dir), VendorID: id(dir, "vendor"), ProductID: id(dir, "device"),
		})
	}
	result.Total = uint64(len(result.Cards))
	return result
}

// usbs reads /sys/bus/usb/devices; what has no idVendor is an interface of a
// device.
func usbs(root string) api.ResourcesUSB {
	result := api.ResourcesUSB{Devices: []api.ResourcesUSBDevice{}}
	base := root + "/sys/bus/usb/devices"
	for _, name := range names(base) {
		dir := base + "/" + name
		vendor := read(dir, "idVendor")
		if vendor == "" {
			continue
		}
		speed, _ := strconv.ParseFloat(read(dir, "speed"), 64)
		result.Devices = append(result.Devices, api.ResourcesUSBDevice{
			BusAddress: count(dir, "busnum"), DeviceAddress: count(dir, "devnum"), Speed: speed,
			Vendor: read(dir, "manufacturer"), VendorID: vendor, Product: read(dir, "product"), ProductID: read(dir, "idProduct"),
		})
	}
	result.Total = uint64(len(result.Devices))
	return result
}

// system reads what the firmware says (DMI).
func system(root string) api.ResourcesSystem {
	dmi := root + "/sys/class/dmi/id/"
	result := api.ResourcesSystem{
		UUID: read(dmi, "product_uuid"), Vendor: read(dmi, "sys_vendor"), Product: read(dmi, "product_name"),
		Family: read(dmi, "product_family"), Version: read(dmi, "product_version"), Sku: read(dmi, "product_sku"),
		Serial: read(dmi, "product_serial"), Type: "unknown",
	}
	switch {
	case exists(root, "run/systemd/container") || exists(root, "dev/lxd/sock"):
		result.Type = "container"
	case strings.Contains(read(root, "proc/cpuinfo"), " hypervisor"):
		// The flag that hypervisors set (CPUID leaf 1, ECX bit 31).
		result.Type = "virtual-machine"
	case exists(dmi):
		result.Type = "physical"
	}
	if exists(dmi) {
		result.Firmware = &api.ResourcesSystemFirmware{
			Vendor: read(dmi, "bios_vendor"), Date: read(dmi, "bios_date"), Version: read(dmi, "bios_version"),
		}
		result.Chassis = &api.ResourcesSystemChassis{
			Vendor: read(dmi, "chassis_vendor"), Type: chassis[read(dmi, "chassis_type")],
			Serial: read(dmi, "chassis_serial"), Version: read(dmi, "chassis_version"),
		}
		result.Motherboard = &api.ResourcesSystemMotherboard{
			Vendor: read(dmi, "board_vendor"), Product: read(dmi, "board_name"),
			Serial: read(dmi, "board_serial"), Version: read(dmi, "board_version"),
		}
	}
	return result
}

// chassis names the chassis types of SMBIOS 3.0 (table 17) that servers and
// desks have.
var chassis = map[string]string{
	"1": "Other", "2": "Unknown", "3": "Desktop", "4": "Low Profile Desktop", "6": "Mini Tower", "7": "Tower",
	"8": "Portable", "9": "Laptop", "10": "Notebook", "13": "All In One", "17": "Main Server Chassis",
	"23": "Rack Mount Chassis", "25": "Multi-system", "28": "Blade", "29": "Blade Enclosure", "35": "Mini PC",
}
