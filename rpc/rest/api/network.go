package api

// NetworkPut is what a client may replace of a network.
type NetworkPut struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
}

// Network is a managed network, or an interface of the host.
type Network struct {
	NetworkPut
	Name string `json:"name"`
	// Type is "bridge", "physical", "loopback", "vlan", "bond" …
	Type string `json:"type"`
	// UsedBy are URLs of instances and profiles.
	UsedBy []string `json:"used_by"`
	// Managed says that the server made it.
	Managed bool `json:"managed"`
	// Status is "Created", "Pending", "Errored" …, empty when unmanaged.
	Status string `json:"status"`
	// Locations are the members that have it.
	Locations []string `json:"locations"`
}

// NetworksPost creates a network.
type NetworksPost struct {
	NetworkPut
	Name string `json:"name"`
	// Type defaults to "bridge".
	Type string `json:"type"`
}

// NetworkPost renames a network.
type NetworkPost struct {
	Name string `json:"name"`
}

// NetworkLease is an address given out, or set aside, by a network.
type NetworkLease struct {
	Hostname string `json:"hostname"`
	Hwaddr   string `json:"hwaddr"`
	Address  string `json:"address"`
	// Type is "static", "dynamic", "gateway" or "uplink".
	Type     string `json:"type"`
	Location string `json:"location"`
}

// NetworkState is a network's interface on the host.
type NetworkState struct {
	Addresses []NetworkStateAddress `json:"addresses"`
	Counters  NetworkStateCounters  `json:"counters"`
	Hwaddr    string                `json:"hwaddr"`
	Mtu       int                   `json:"mtu"`
	// State is "up" or "down".
	State string `json:"state"`
	// Type is "broadcast", "loopback", "point-to-point" or "unknown".
	Type   string              `json:"type"`
	Bond   *NetworkStateBond   `json:"bond"`
	Bridge *NetworkStateBridge `json:"bridge"`
	VLAN   *NetworkStateVLAN   `json:"vlan"`
	OVN    *NetworkStateOVN    `json:"ovn"`
}

// NetworkStateAddress is one address of the interface.
type NetworkStateAddress struct {
	Family  string `json:"family"`
	Address string `json:"address"`
	// Netmask is the prefix length.
	Netmask string `json:"netmask"`
	Scope   string `json:"scope"`
}

// NetworkStateCounters count since the interface came up.
type NetworkStateCounters struct {
	BytesReceived   int64 `json:"bytes_received"`
	BytesSent       int64 `json:"bytes_sent"`
	PacketsReceived int64 `json:"packets_received"`
	PacketsSent     int64 `json:"packets_sent"`
}

// NetworkStateBond is filled for a bond. Delays are in milliseconds.
type NetworkStateBond struct {
	Mode            string   `json:"mode"`
	TransmitPolicy  string   `json:"transmit_policy"`
	UpDelay         uint64   `json:"up_delay"`
	DownDelay       uint64   `json:"down_delay"`
	MIIFrequency    uint64   `json:"mii_frequency"`
	MIIState        string   `json:"mii_state"`
	LowerDevices    []string `json:"lower_devices"`
	ActiveInterface string   `json:"active_interface,omitempty"`
}

// NetworkStateBridge is filled for a bridge. ForwardDelay is in hundredths of
// a second.
type NetworkStateBridge struct {
	ID            string   `json:"id"`
	STP           bool     `json:"stp"`
	ForwardDelay  uint64   `json:"forward_delay"`
	VLANDefault   uint64   `json:"vlan_default"`
	VLANFiltering bool     `json:"vlan_filtering"`
	UpperDevices  []string `json:"upper_devices"`
}

// NetworkStateVLAN is filled for a VLAN interface.
type NetworkStateVLAN struct {
	LowerDevice string `json:"lower_device"`
	VID         uint64 `json:"vid"`
}

// NetworkStateOVN is filled for an OVN network, which muster has none of.
type NetworkStateOVN struct {
	Chassis string `json:"chassis"`
}
