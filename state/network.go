package state

// Network is a managed network of the cluster.
type Network struct {
	Meta
	Project     string
	Name        string
	Description string
	// Type is "bridge".
	Type   string
	Config Config
	// Busy names the open intent, or is empty.
	Busy string
}
