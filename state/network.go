package state

// Network is a managed network of the cluster.
type Network struct {
	Meta
	Project     string
	Name        string
	Description string
	// Type is "bridge".
	Type string
	// Config is what holds for the whole cluster: see On.
	Config Config
	// Locals say how the network is on each member.
	Locals Locals
	// Busy is "create" or "delete" while members are at it, names an open intent, or is
	// empty.
	Busy string
}
