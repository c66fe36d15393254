package api

// ServerUntrusted is what GET /1.0 tells anybody.
type ServerUntrusted struct {
	APIExtensions []string `json:"api_extensions"`
	// APIStatus is "stable".
	APIStatus  string `json:"api_status"`
	APIVersion string `json:"api_version"`
	// Auth is "trusted", "untrusted" or, in old servers, "guest".
	Auth string `json:"auth"`
	// Public says that the server only hands out images.
	Public bool `json:"public"`
	// AuthMethods must contain "tls", or stock clients refuse to log in.
	AuthMethods []string `json:"auth_methods"`
}

// ServerPut replaces the server's configuration. Values are strings when
// written; a secret reads back as true.
type ServerPut struct {
	Config map[string]any `json:"config"`
}

// Server is what GET /1.0 tells a trusted client.
type Server struct {
	ServerPut
	ServerUntrusted
	Environment ServerEnvironment `json:"environment"`
}

// ServerEnvironment describes the member that answered and its host.
type ServerEnvironment struct {
	// Addresses are host:port pairs that the API can be reached at.
	Addresses     []string `json:"addresses"`
	Architectures []string `json:"architectures"`
	// Certificate is the server certificate in PEM form.
	Certificate            string `json:"certificate"`
	CertificateFingerprint string `json:"certificate_fingerprint"`
	Driver                 string `json:"driver"`
	DriverVersion          string `json:"driver_version"`
	Firewall               string `json:"firewall"`
	Kernel                 string `json:"kernel"`
	KernelArchitecture     string `json:"kernel_architecture"`
	// KernelFeatures and LXCFeatures map a feature to "true" or "false".
	KernelFeatures  map[string]string `json:"kernel_features"`
	KernelVersion   string            `json:"kernel_version"`
	LXCFeatures     map[string]string `json:"lxc_features"`
	OSName          string            `json:"os_name"`
	OSVersion       string            `json:"os_version"`
	Project         string            `json:"project"`
	Server          string            `json:"server"`
	ServerClustered bool              `json:"server_clustered"`
	ServerEventMode string            `json:"server_event_mode"`
	ServerName      string            `json:"server_name"`
	ServerPid       int               `json:"server_pid"`
	// ServerVersion is the release of LXD whose API is served: clients refuse or trim
	// what they do by it. MusterVersion is the server's own; LXD has none.
	ServerVersion string `json:"server_version"`
	MusterVersion string `json:"muster_version,omitempty"`
	// Storage and StorageVersion list the drivers in use, joined by " | ".
	Storage                 string                    `json:"storage"`
	StorageVersion          string                    `json:"storage_version"`
	StorageSupportedDrivers []ServerStorageDriverInfo `json:"storage_supported_drivers"`
}

// ServerStorageDriverInfo names a storage driver that pools can be made with.
// The capitals are LXD 5.0's own.
type ServerStorageDriverInfo struct {
	Name    string `json:"Name"`
	Version string `json:"Version"`
	// Remote says that every member reaches the same storage.
	Remote bool `json:"Remote"`
}
