package api

// ImageAliasesEntryPut is what a client may replace of an alias.
type ImageAliasesEntryPut struct {
	Description string `json:"description"`
	// Target is an image's fingerprint.
	Target string `json:"target"`
}

// ImageAliasesEntry is an alias with the image it names.
type ImageAliasesEntry struct {
	ImageAliasesEntryPut
	Name string `json:"name"`
	// Type is the image's type.
	Type string `json:"type"`
}

// ImageAliasesPost creates an alias.
type ImageAliasesPost struct {
	ImageAliasesEntryPut
	Name string `json:"name"`
	Type string `json:"type,omitempty"`
}

// ImageAliasesEntryPost renames an alias.
type ImageAliasesEntryPost struct {
	Name string `json:"name"`
}
