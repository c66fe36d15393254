package machine

import (
	"path/filepath"
	"slices"

	"muster/rpc/rest/api"
)

// networks reads /sys/class/net: interfaces that have a device behind them,
// those of one device together as the ports of a card.
func networks(root string) api.ResourcesNetwork {
	result := api.ResourcesNetwork{Cards: []api.ResourcesNetworkCard{}}
	base := root + "/sys/class/net"
	cards := map[string]int{}
	for _, name := range names(base) {
		dir := base + "/" + name
		device, err := filepath.EvalSymlinks(dir + "/device")
		if err != nil {
			continue
		}
		at, known := cards[device]
		if !known {
			at = len(result.Cards)
			cards[device] = at
			address := pciAbove(device)
			result.Cards = append(result.Cards, api.ResourcesNetworkCard{
				Driver: link(device, "driver"), DriverVersion: read(device, "driver/module/version"),
				NUMANode: node(device), PCIAddress: address,
				VendorID: id(device, "vendor"), ProductID: id(device, "device"),
			})
		}
		result.Cards[at].Ports = append(result.Cards[at].Ports, port(dir, name))
	}
	result.Total = uint64(len(result.Cards))
	return result
}

// arphrdEthernet and arphrdInfiniband are the link types of if_arp.h that
// clients know by name.
const (
	arphrdEthernet   = 1
	arphrdInfiniband = 32
)

func port(dir, name string) api.ResourcesNetworkCardPort {
	port := api.ResourcesNetworkCardPort{
		ID: name, Address: read(dir, "address"), Port: count(dir, "dev_port"),
		LinkDetected: count(dir, "carrier") == 1,
	}
	switch count(dir, "type") {
	case arphrdEthernet:
		port.Protocol = "ethernet"
	case arphrdInfiniband:
		port.Protocol = "infiniband"
	default:
		port.Protocol = "unknown"
	}
	// Speed is -1, and duplex unknown, while there is no link.
	if speed, ok := number(dir, "speed"); ok && port.LinkDetected {
		port.LinkSpeed = speed
	}
	if duplex := read(dir, "duplex"); slices.Contains([]string{"half", "full"}, duplex) {
		port.LinkDuplex = duplex
	}
	return port
}
