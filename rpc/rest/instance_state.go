package rest

import (
	"strconv"

	"golang.org/x/sync/errgroup"

	"muster/node"
	"muster/rpc/rest/api"
)

// showState writes what an instance uses the way clients read it.
func showState(usage node.Usage) api.InstanceState {
	shown := api.InstanceState{
		Status: string(usage.Status), StatusCode: statusCode(usage.Status),
		Disk: map[string]api.InstanceStateDisk{}, Network: map[string]api.InstanceStateNetwork{},
		Processes: -1,
	}
	for device, bytes := range usage.Disk {
		shown.Disk[device] = api.InstanceStateDisk{Usage: bytes}
	}
	if used := usage.Runtime; used != nil {
		shown.Pid, shown.Processes = int64(used.InitPID), used.Processes
		shown.CPU.Usage = used.CPU
		shown.Memory = api.InstanceStateMemory{
			Usage: counted(used.Memory), UsagePeak: counted(used.MemoryPeak),
			SwapUsage: counted(used.Swap), SwapUsagePeak: counted(used.SwapPeak),
		}
	}
	for _, nic := range usage.Interfaces {
		up := "down"
		if nic.Up {
			up = "up"
		}
		network := api.InstanceStateNetwork{
			Addresses: []api.InstanceStateNetworkAddress{}, Hwaddr: nic.HWAddr, HostName: nic.HostName, Mtu: nic.MTU, State: up, Type: nic.Type,
			Counters: api.InstanceStateNetworkCounters{
				BytesReceived: nic.Counters.BytesReceived, BytesSent: nic.Counters.BytesSent,
				PacketsReceived: nic.Counters.PacketsReceived, PacketsSent: nic.Counters.PacketsSent,
				ErrorsReceived: nic.Counters.ErrorsReceived, ErrorsSent: nic.Counters.ErrorsSent,
				PacketsDroppedInbound: nic.Counters.PacketsDroppedInbound, PacketsDroppedOutbound: nic.Counters.PacketsDroppedOutbound,
			},
		}
		for _, address := range nic.Addresses {
			network.Addresses = append(network.Addresses, api.InstanceStateNetworkAddress{
				Family: address.Family, Address: address.Address, Netmask: strconv.Itoa(address.Netmask), Scope: address.Scope,
			})
		}
		shown.Network[nic.Name] = network
	}
	return shown
}

// counted hides what the kernel does not account here.
func counted(value int64) int64 { return max(value, 0) }

// each runs f for every element, a few at a time.
func each[T any](list []T, f func(int, T) error) error {
	var group errgroup.Group
	group.SetLimit(8)
	for i, element := range list {
		group.Go(func() error { return f(i, element) })
	}
	return group.Wait()
}
