package api

// MetadataConfiguration lists configuration keys, in the shape in which later releases of
// LXD have it: by what they configure, and by their group.
type MetadataConfiguration struct {
	Configs map[string]map[string]MetadataConfigurationGroup `json:"configs"`
}

// MetadataConfigurationGroup are the keys of a group, each alone in its map.
type MetadataConfigurationGroup struct {
	Keys []map[string]MetadataConfigurationKey `json:"keys"`
}

// MetadataConfigurationKey describes one key.
type MetadataConfigurationKey struct {
	ShortDesc   string `json:"shortdesc"`
	DefaultDesc string `json:"defaultdesc,omitempty"`
	// Scope is global for a key of the whole cluster, local for one of a member.
	Scope string `json:"scope"`
	// Inert says that the key is stored and has no effect yet.
	Inert bool `json:"inert,omitempty"`
}
