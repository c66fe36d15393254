package machine_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
	"muster/rpc/rest/machine"
)

// tree writes files below a new root; a value that starts with "->" is the
// target of a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(content) > 2 && content[:2] == "->" {
			err = os.Symlink(content[2:], path)
		} else {
			err = os.WriteFile(path, []byte(content+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestProcessors(t *testing.T) {
	files := map[string]string{
		"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Fast\ncpu MHz\t\t: 2400.5\n\n" +
			"processor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Fast\ncpu MHz\t\t: 2600\n",
		"sys/devices/system/cpu/isolated":                           "2-3",
		"sys/devices/system/cpu/cpu0/cache/index0/level":            "1",
		"sys/devices/system/cpu/cpu0/cache/index0/type":             "Data",
		"sys/devices/system/cpu/cpu0/cache/index0/size":             "32K",
		"sys/devices/system/cpu/cpu3/online":                        "0",
		"sys/devices/system/cpu/cpu3/topology/core_id":              "1",
		"sys/devices/system/cpu/cpu2/topology/core_id":              "0",
		"sys/devices/system/cpu/cpu2/node1/x":                       "",
		"sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq":      "3000000",
		"sys/devices/system/cpu/cpu10/topology/physical_package_id": "1",
		"sys/devices/system/cpu/cpufreq/policy0/x":                  "",
	}
	for cpu, core := range map[string]string{"cpu0": "0", "cpu1": "1"} {
		files["sys/devices/system/cpu/"+cpu+"/topology/core_id"] = core
	}
	got := machine.Resources(tree(t, files)).CPU
	if got.Total != 5 || len(got.Sockets) != 2 {
		t.Fatalf("%d processors in %d sockets; want 5 in 2", got.Total, len(got.Sockets))
	}
	want := api.ResourcesCPUSocket{
		Name: "Fast", Vendor: "GenuineIntel", Socket: 0, Frequency: 2500,
		Cache: []api.ResourcesCPUCache{{Level: 1, Type: "Data", Size: 32 << 10}},
		Cores: []api.ResourcesCPUCore{
			{Core: 0, Frequency: 2400, Threads: []api.ResourcesCPUThread{{ID: 0, Online: true}, {ID: 2, Thread: 1, NUMANode: 1, Online: true, Isolated: true}}},
			{Core: 1, Frequency: 2600, Threads: []api.ResourcesCPUThread{{ID: 1, Online: true}, {ID: 3, Thread: 1, Isolated: true}}},
		},
	}
	if diff := cmp.Diff(want, got.Sockets[0]); diff != "" {
		t.Errorf("first socket (-want +got):\n%s", diff)
	}
	if got.Sockets[1].Cores[0].Threads[0].ID != 10 {
		t.Errorf("second socket %+v; want cpu10", got.Sockets[1])
	}
}

func TestState(t *testing.T) {
	got, err := machine.State(tree(t, map[string]string{"proc/loadavg": "0.52 1.00 12.34 2/345 6789"}))
	if err != nil || got.TotalRAM == 0 || got.FreeRAM == 0 || got.FreeRAM > got.TotalRAM || got.Processes == 0 {
		t.Errorf("%+v, %v; want the memory and processes of this machine", got, err)
	}
	if diff := cmp.Diff([]float64{0.52, 1, 12.34}, got.LoadAverages); diff != "" {
		t.Errorf("load averages (-want +got):\n%s", diff)
	}
}

func TestMemory(t *testing.T) {
	got := machine.Resources(tree(t, map[string]string{
		"proc/meminfo":                          "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nHugePages_Total:       4\nHugePages_Free:        3\nHugepagesize:       2048 kB",
		"sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       1000 kB\nNode 0 MemFree:         100 kB\nNode 0 FilePages:         200 kB\nNode 0 HugePages_Total:     4\nNode 0 HugePages_Free:      4",
		"sys/devices/system/node/has_cpu":       "0",
	})).Memory
	want := api.ResourcesMemory{
		Total: 1000 << 10, Used: 600 << 10, HugepagesSize: 2 << 20, HugepagesTotal: 8 << 20, HugepagesUsed: 2 << 20,
		Nodes: []api.ResourcesMemoryNode{{NUMANode: 0, Total: 1000 << 10, Used: 700 << 10, HugepagesTotal: 8 << 20}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("memory (-want +got):\n%s", diff)
	}
}

func TestDisksAndCards(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/class/block/sda":              "->../../devices/pci0000:00/0000:00:1f.2/ata1/block/sda",
		"sys/class/block/sda1":             "->../../devices/pci0000:00/0000:00:1f.2/ata1/block/sda/sda1",
		"sys/class/block/loop0":            "->../../devices/virtual/block/loop0",
		"sys/class/net/eth0":               "->../../devices/pci0000:00/0000:00:02.0/net/eth0",
		"sys/class/net/lo":                 "->../../devices/virtual/net/lo",
		"sys/bus/pci/x":                    "",
		"sys/bus/scsi/x":                   "",
		"sys/bus/pci/drivers/e1000e/x":     "",
		"dev/disk/by-id/ata-Disk_S1":       "->../../sda",
		"dev/sda":                          "",
		"sys/bus/pci/devices/0000:00:02.0": "->../../../devices/pci0000:00/0000:00:02.0",

		"sys/devices/pci0000:00/0000:00:1f.2/subsystem":                                "->../../../bus/pci",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/subsystem":                           "->../../../../bus/scsi",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/model":                               "Disk",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/device":                    "->../..",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/dev":                       "8:0",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/size":                      "2048",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/removable":                 "0",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/queue/physical_block_size": "4096",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/queue/rotational":          "1",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/sda1/partition":            "1",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/sda1/size":                 "1024",
		"sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sda/sda1/dev":                  "8:1",
		"sys/devices/virtual/block/loop0/size":                                         "100",

		"sys/devices/pci0000:00/0000:00:02.0/subsystem":        "->../../../bus/pci",
		"sys/devices/pci0000:00/0000:00:02.0/driver":           "->../../../bus/pci/drivers/e1000e",
		"sys/devices/pci0000:00/0000:00:02.0/vendor":           "0x8086",
		"sys/devices/pci0000:00/0000:00:02.0/device":           "0x10d3",
		"sys/devices/pci0000:00/0000:00:02.0/numa_node":        "-1",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/device":  "->../..",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/address": "00:16:3e:00:00:01",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/type":    "1",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/carrier": "1",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/speed":   "1000",
		"sys/devices/pci0000:00/0000:00:02.0/net/eth0/duplex":  "full",
		"sys/devices/virtual/net/lo/type":                      "772",
	})
	got := machine.Resources(root)
	wantDisks := api.ResourcesStorage{Total: 2, Disks: []api.ResourcesStorageDisk{{
		ID: "sda", Device: "8:0", Model: "Disk", Type: "scsi", Size: 1 << 20, BlockSize: 4096, RPM: 1, DeviceID: "ata-Disk_S1", PCIAddress: "0000:00:1f.2",
		Partitions: []api.ResourcesStorageDiskPartition{{ID: "sda1", Device: "8:1", Size: 512 << 10, Partition: 1}},
	}}}
	if diff := cmp.Diff(wantDisks, got.Storage); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	wantCards := api.ResourcesNetwork{Total: 1, Cards: []api.ResourcesNetworkCard{{
		Driver: "e1000e", PCIAddress: "0000:00:02.0", VendorID: "8086", ProductID: "10d3",
		Ports: []api.ResourcesNetworkCardPort{{
			ID: "eth0", Address: "00:16:3e:00:00:01", Protocol: "ethernet", LinkDetected: true, LinkSpeed: 1000, LinkDuplex: "full",
		}},
	}}}
	if diff := cmp.Diff(wantCards, got.Network); diff != "" {
		t.Errorf("cards (-want +got):\n%s", diff)
	}
	wantPCI := api.ResourcesPCI{Total: 1, Devices: []api.ResourcesPCIDevice{{PCIAddress: "0000:00:02.0", Driver: "e1000e", VendorID: "8086", ProductID: "10d3"}}}
	if diff := cmp.Diff(wantPCI, got.PCI); diff != "" {
		t.Errorf("pci (-want +got):\n%s", diff)
	}
}

func TestAMachineThatTellsNothing(t *testing.T) {
	got := machine.Resources(t.TempDir())
	if got.CPU.Sockets == nil || got.Storage.Disks == nil || got.Network.Cards == nil || got.GPU.Cards == nil || got.USB.Devices == nil || got.PCI.Devices == nil {
		t.Errorf("%+v; want empty lists, not null", got)
	}
	if got.System.Type != "unknown" {
		t.Errorf("type %q; want unknown", got.System.Type)
	}
}

func TestRead(t *testing.T) {
	for name, text := range map[string]string{
		"quoted":        `NAME="Debian GNU/Linux"` + "\n" + `VERSION_ID="12"`,
		"single quotes": `NAME='Debian GNU/Linux'` + "\n" + `VERSION_ID=12` + "\nPRETTY_NAME=x",
	} {
		got := machine.Read(tree(t, map[string]string{"etc/os-release": text}))
		if got.OSName != "Debian GNU/Linux" || got.OSVersion != "12" {
			t.Errorf("%s: %q %q; want Debian GNU/Linux 12", name, got.OSName, got.OSVersion)
		}
	}
	got := machine.Read("/")
	if got.Kernel != "Linux" || got.KernelVersion == "" {
		t.Errorf("%+v; want Linux and its version", got)
	}
	if runtime.GOARCH == "arm64" && !slices.Equal(got.Architectures, []string{"aarch64"}) {
		t.Errorf("architectures %v; want aarch64", got.Architectures)
	}
}
