package runtime

// Proxy passes connections from one side of a container's border to the other.
type Proxy struct {
	// Name is unique among the container's proxies: the device's name.
	Name string
	// Listen are where connections are accepted, Connect where each is passed
	// on to: as many as Listen, or one for all.
	Listen, Connect []Endpoint
	// InContainer listens inside the container and connects on the host;
	// otherwise the other way round.
	InContainer bool
	// Mode, UID and GID are those of a listening unix socket; zero mode is 0644.
	Mode     uint32
	UID, GID uint32
	// RunUID and RunGID are who the helper connects as.
	RunUID, RunGID uint32
	// ProxyProtocol sends the client's address ahead, in the PROXY protocol's
	// version 1, over TCP.
	ProxyProtocol bool
}

// Endpoint is an address to listen on or connect to.
type Endpoint struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is an IP address and a port, or a path ("@name" for an abstract socket).
	Address string
}
