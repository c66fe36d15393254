package api

// InstanceStatePut asks for another state.
type InstanceStatePut struct {
	// Action is start, stop, restart, freeze or unfreeze.
	Action string `json:"action"`
	// Timeout in seconds: a clean stop that takes longer fails; negative or
	// zero waits without end.
	Timeout int `json:"timeout"`
	// Force kills instead of asking (stop and restart).
	Force    bool `json:"force"`
	Stateful bool `json:"stateful"`
}

// InstanceState is what an instance uses right now.
type InstanceState struct {
	Status     string                          `json:"status"`
	StatusCode StatusCode                      `json:"status_code"`
	Disk       map[string]InstanceStateDisk    `json:"disk"`
	Memory     InstanceStateMemory             `json:"memory"`
	Network    map[string]InstanceStateNetwork `json:"network"`
	// Pid is the init process as the host sees it; 0 when stopped.
	Pid int64 `json:"pid"`
	// Processes counts them; -1 when stopped and unknown.
	Processes int64            `json:"processes"`
	CPU       InstanceStateCPU `json:"cpu"`
}

// InstanceStateDisk is one disk device's use, in bytes.
type InstanceStateDisk struct {
	Usage int64 `json:"usage"`
}

// InstanceStateCPU counts nanoseconds of processor time since the start.
type InstanceStateCPU struct {
	Usage int64 `json:"usage"`
}

// InstanceStateMemory is in bytes.
type InstanceStateMemory struct {
	Usage         int64 `json:"usage"`
	UsagePeak     int64 `json:"usage_peak"`
	SwapUsage     int64 `json:"swap_usage"`
	SwapUsagePeak int64 `json:"swap_usage_peak"`
}

// InstanceStateNetwork is one network interface seen from inside.
type InstanceStateNetwork struct {
	Addresses []InstanceStateNetworkAddress `json:"addresses"`
	Counters  InstanceStateNetworkCounters  `json:"counters"`
	Hwaddr    string                        `json:"hwaddr"`
	// HostName is the host's end of a veth pair.
	HostName string `json:"host_name"`
	Mtu      int    `json:"mtu"`
	// State is "up" or "down".
	State string `json:"state"`
	// Type is "broadcast", "loopback", "point-to-point" or "unknown".
	Type string `json:"type"`
}

// InstanceStateNetworkAddress is one address of an interface.
type InstanceStateNetworkAddress struct {
	// Family is "inet" or "inet6".
	Family  string `json:"family"`
	Address string `json:"address"`
	// Netmask is the prefix length.
	Netmask string `json:"netmask"`
	// Scope is "local", "link" or "global".
	Scope string `json:"scope"`
}

// InstanceStateNetworkCounters count since the interface came up.
type InstanceStateNetworkCounters struct {
	BytesReceived          int64 `json:"bytes_received"`
	BytesSent              int64 `json:"bytes_sent"`
	PacketsReceived        int64 `json:"packets_received"`
	PacketsSent            int64 `json:"packets_sent"`
	ErrorsReceived         int64 `json:"errors_received"`
	ErrorsSent             int64 `json:"errors_sent"`
	PacketsDroppedOutbound int64 `json:"packets_dropped_outbound"`
	PacketsDroppedInbound  int64 `json:"packets_dropped_inbound"`
}
