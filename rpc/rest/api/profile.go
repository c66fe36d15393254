package api

// ProfilePut is what a client may replace of a profile.
type ProfilePut struct {
	Config      map[string]string            `json:"config"`
	Description string                       `json:"description"`
	Devices     map[string]map[string]string `json:"devices"`
}

// Profile is configuration that instances share.
type Profile struct {
	ProfilePut
	Name string `json:"name"`
	// UsedBy are URLs of instances.
	UsedBy []string `json:"used_by"`
}

// ProfilesPost creates a profile.
type ProfilesPost struct {
	ProfilePut
	Name string `json:"name"`
}

// ProfilePost renames a profile.
type ProfilePost struct {
	Name string `json:"name"`
}
