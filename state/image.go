package state

import "time"

// Image is a root file system with its metadata, stored once and launched from.
type Image struct {
	Meta
	Project string
	// Fingerprint is the lower-case hex SHA-256 of the uploaded file; of both
	// files, metadata first, for a split image.
	Fingerprint string
	Filename    string
	// Size is in bytes, of all files.
	Size         int64
	Architecture string
	// Type is "container".
	Type       string
	Public     bool
	AutoUpdate bool
	Cached     bool
	Properties map[string]string
	Profiles   []string
	// Split says that metadata and root file system are two files.
	Split     bool
	CreatedAt time.Time
	// ExpiresAt and LastUsedAt are zero when unset.
	ExpiresAt  time.Time
	LastUsedAt time.Time
	UploadedAt time.Time
	// Source is where an update would come from, or nil.
	Source *ImageSource
	// Members are the names of the members that hold the files.
	Members []string
}

// ImageSource is the remote image that a local one was copied from.
type ImageSource struct {
	Server      string
	Protocol    string
	Certificate string
	Alias       string
}

// ImageAlias is a name for an image.
type ImageAlias struct {
	Meta
	Project     string
	Name        string
	Description string
	// Target is the image's fingerprint.
	Target string
}
