package api

// Resources is the hardware of a member. Sizes are in bytes, frequencies in
// MHz.
type Resources struct {
	CPU     ResourcesCPU     `json:"cpu"`
	Memory  ResourcesMemory  `json:"memory"`
	GPU     ResourcesGPU     `json:"gpu"`
	Network ResourcesNetwork `json:"network"`
	Storage ResourcesStorage `json:"storage"`
	USB     ResourcesUSB     `json:"usb"`
	PCI     ResourcesPCI     `json:"pci"`
	System  ResourcesSystem  `json:"system"`
}

// ResourcesCPU lists processors; Total counts threads.
type ResourcesCPU struct {
	Architecture string               `json:"architecture"`
	Sockets      []ResourcesCPUSocket `json:"sockets"`
	Total        uint64               `json:"total"`
}

// ResourcesCPUSocket is one processor package.
type ResourcesCPUSocket struct {
	Name             string              `json:"name,omitempty"`
	Vendor           string              `json:"vendor,omitempty"`
	Socket           uint64              `json:"socket"`
	Cache            []ResourcesCPUCache `json:"cache,omitempty"`
	Cores            []ResourcesCPUCore  `json:"cores"`
	Frequency        uint64              `json:"frequency,omitempty"`
	FrequencyMinimum uint64              `json:"frequency_minimum,omitempty"`
	FrequencyTurbo   uint64              `json:"frequency_turbo,omitempty"`
}

// ResourcesCPUCache is one level of cache.
type ResourcesCPUCache struct {
	Level uint64 `json:"level"`
	// Type is "Data", "Instruction" or "Unified".
	Type string `json:"type"`
	Size uint64 `json:"size"`
}

// ResourcesCPUCore is one core.
type ResourcesCPUCore struct {
	Core      uint64               `json:"core"`
	Die       uint64               `json:"die"`
	Threads   []ResourcesCPUThread `json:"threads"`
	Frequency uint64               `json:"frequency,omitempty"`
}

// ResourcesCPUThread is what the kernel calls a CPU; ID is its number.
type ResourcesCPUThread struct {
	ID       int64  `json:"id"`
	NUMANode uint64 `json:"numa_node"`
	Thread   uint64 `json:"thread"`
	Online   bool   `json:"online"`
	Isolated bool   `json:"isolated"`
}

// ResourcesMemory is in bytes, huge pages included.
type ResourcesMemory struct {
	Nodes          []ResourcesMemoryNode `json:"nodes,omitempty"`
	HugepagesTotal uint64                `json:"hugepages_total"`
	HugepagesUsed  uint64                `json:"hugepages_used"`
	HugepagesSize  uint64                `json:"hugepages_size"`
	Used           uint64                `json:"used"`
	Total          uint64                `json:"total"`
}

// ResourcesMemoryNode is one NUMA node's memory, in bytes.
type ResourcesMemoryNode struct {
	NUMANode       uint64 `json:"numa_node"`
	HugepagesUsed  uint64 `json:"hugepages_used"`
	HugepagesTotal uint64 `json:"hugepages_total"`
	Used           uint64 `json:"used"`
	Total          uint64 `json:"total"`
}

// ResourcesGPU lists graphics cards.
type ResourcesGPU struct {
	Cards []ResourcesGPUCard `json:"cards"`
	Total uint64             `json:"total"`
}

// ResourcesGPUCard is one graphics card.
type ResourcesGPUCard struct {
	Driver        string `json:"driver,omitempty"`
	DriverVersion string `json:"driver_version,omitempty"`
	NUMANode      uint64 `json:"numa_node"`
	PCIAddress    string `json:"pci_address,omitempty"`
	Vendor        string `json:"vendor,omitempty"`
	VendorID      string `json:"vendor_id,omitempty"`
	Product       string `json:"product,omitempty"`
	ProductID     string `json:"product_id,omitempty"`
}

// ResourcesNetwork lists network cards.
type ResourcesNetwork struct {
	Cards []ResourcesNetworkCard `json:"cards"`
	Total uint64                 `json:"total"`
}

// ResourcesNetworkCard is one network card.
type ResourcesNetworkCard struct {
	Driver        string                     `json:"driver,omitempty"`
	DriverVersion string                     `json:"driver_version,omitempty"`
	Ports         []ResourcesNetworkCardPort `json:"ports,omitempty"`
	NUMANode      uint64                     `json:"numa_node"`
	PCIAddress    string                     `json:"pci_address,omitempty"`
	Vendor        string                     `json:"vendor,omitempty"`
	VendorID      string                     `json:"vendor_id,omitempty"`
	Product       string                     `json:"product,omitempty"`
	ProductID     string                     `json:"product_id,omitempty"`
}

// ResourcesNetworkCardPort is one interface of a card; LinkSpeed is in Mbit/s.
type ResourcesNetworkCardPort struct {
	ID              string   `json:"id"`
	Address         string   `json:"address,omitempty"`
	Port            uint64   `json:"port"`
	Protocol        string   `json:"protocol"`
	SupportedModes  []string `json:"supported_modes,omitempty"`
	SupportedPorts  []string `json:"supported_ports,omitempty"`
	PortType        string   `json:"port_type,omitempty"`
	TransceiverType string   `json:"transceiver_type,omitempty"`
	AutoNegotiation bool     `json:"auto_negotiation"`
	LinkDetected    bool     `json:"link_detected"`
	LinkSpeed       uint64   `json:"link_speed,omitempty"`
	LinkDuplex      string   `json:"link_duplex,omitempty"`
}

// ResourcesStorage lists disks.
type ResourcesStorage struct {
	Disks []ResourcesStorageDisk `json:"disks"`
	Total uint64                 `json:"total"`
}

// ResourcesStorageDisk is one disk.
type ResourcesStorageDisk struct {
	ID string `json:"id"`
	// Device is major:minor.
	Device   string `json:"device"`
	Model    string `json:"model,omitempty"`
	Type     string `json:"type,omitempty"`
	ReadOnly bool   `json:"read_only"`
	Size     uint64 `json:"size"`

	Removable       bool                            `json:"removable"`
	WWN             string                          `json:"wwn,omitempty"`
	NUMANode        uint64                          `json:"numa_node"`
	DevicePath      string                          `json:"device_path,omitempty"`
	BlockSize       uint64                          `json:"block_size"`
	FirmwareVersion string                          `json:"firmware_version,omitempty"`
	RPM             uint64                          `json:"rpm"`
	Serial          string                          `json:"serial,omitempty"`
	DeviceID        string                          `json:"device_id"`
	Partitions      []ResourcesStorageDiskPartition `json:"partitions"`
	PCIAddress      string                          `json:"pci_address,omitempty"`
	USBAddress      string                          `json:"usb_address,omitempty"`
}

// ResourcesStorageDiskPartition is one partition.
type ResourcesStorageDiskPartition struct {
	ID        string `json:"id"`
	Device    string `json:"device"`
	ReadOnly  bool   `json:"read_only"`
	Size      uint64 `json:"size"`
	Partition uint64 `json:"partition"`
}

// ResourcesUSB lists USB devices.
type ResourcesUSB struct {
	Devices []ResourcesUSBDevice `json:"devices"`
	Total   uint64               `json:"total"`
}

// ResourcesUSBDevice is one USB device; Speed is in Mbit/s.
type ResourcesUSBDevice struct {
	BusAddress    uint64  `json:"bus_address"`
	DeviceAddress uint64  `json:"device_address"`
	Vendor        string  `json:"vendor"`
	VendorID      string  `json:"vendor_id"`
	Product       string  `json:"product"`
	ProductID     string  `json:"product_id"`
	Speed         float64 `json:"speed"`
}

// ResourcesPCI lists PCI devices.
type ResourcesPCI struct {
	Devices []ResourcesPCIDevice `json:"devices"`
	Total   uint64               `json:"total"`
}

// ResourcesPCIDevice is one PCI device.
type ResourcesPCIDevice struct {
	Driver        string `json:"driver"`
	DriverVersion string `json:"driver_version"`
	NUMANode      uint64 `json:"numa_node"`
	PCIAddress    string `json:"pci_address"`
	Vendor        string `json:"vendor"`
	VendorID      string `json:"vendor_id"`
	Product       string `json:"product"`
	ProductID     string `json:"product_id"`
	IOMMUGroup    uint64 `json:"iommu_group"`
}

// ResourcesSystem is what the firmware says of the machine.
type ResourcesSystem struct {
	UUID    string `json:"uuid"`
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Family  string `json:"family"`
	Version string `json:"version"`
	Sku     string `json:"sku"`
	Serial  string `json:"serial"`
	// Type is "physical", "virtual-machine", "container" or "unknown".
	Type        string                      `json:"type"`
	Firmware    *ResourcesSystemFirmware    `json:"firmware"`
	Chassis     *ResourcesSystemChassis     `json:"chassis"`
	Motherboard *ResourcesSystemMotherboard `json:"motherboard"`
}

// ResourcesSystemFirmware is the BIOS.
type ResourcesSystemFirmware struct {
	Vendor  string `json:"vendor"`
	Date    string `json:"date"`
	Version string `json:"version"`
}

// ResourcesSystemChassis is the case.
type ResourcesSystemChassis struct {
	Vendor  string `json:"vendor"`
	Type    string `json:"type"`
	Serial  string `json:"serial"`
	Version string `json:"version"`
}

// ResourcesSystemMotherboard is the main board.
type ResourcesSystemMotherboard struct {
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Serial  string `json:"serial"`
	Version string `json:"version"`
}
