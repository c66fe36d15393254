package api

// ProjectPut is what a client may replace of a project.
type ProjectPut struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
}

// Project groups instances, images, profiles and networks.
type Project struct {
	ProjectPut
	Name string `json:"name"`
	// UsedBy are URLs of what is in it.
	UsedBy []string `json:"used_by"`
}

// ProjectsPost creates a project.
type ProjectsPost struct {
	ProjectPut
	Name string `json:"name"`
}

// ProjectPost renames a project.
type ProjectPost struct {
	Name string `json:"name"`
}

// ProjectState is what a project uses of its limits.
type ProjectState struct {
	Resources map[string]ProjectStateResource `json:"resources"`
}

// ProjectStateResource is one limit; -1 is "no limit". Units are the limit's.
type ProjectStateResource struct {
	Limit int64 `json:"Limit"`
	Usage int64 `json:"Usage"`
}
