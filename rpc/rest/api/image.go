package api

import "time"

// ImagePut is what a client may replace of an image.
type ImagePut struct {
	AutoUpdate bool              `json:"auto_update"`
	Properties map[string]string `json:"properties"`
	Public     bool              `json:"public"`
	ExpiresAt  time.Time         `json:"expires_at"`
	Profiles   []string          `json:"profiles"`
}

// Image is a stored image.
type Image struct {
	ImagePut
	Aliases      []ImageAlias `json:"aliases"`
	Architecture string       `json:"architecture"`
	Cached       bool         `json:"cached"`
	Filename     string       `json:"filename"`
	// Fingerprint is the hex SHA-256 of the files, metadata first.
	Fingerprint string `json:"fingerprint"`
	// Size in bytes.
	Size         int64        `json:"size"`
	UpdateSource *ImageSource `json:"update_source,omitempty"`
	// Type is "container" or "virtual-machine".
	Type       string    `json:"type"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	UploadedAt time.Time `json:"uploaded_at"`
}

// ImageAlias is an alias as an image lists it.
type ImageAlias struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// ImageSource is the remote image that a local one follows.
type ImageSource struct {
	Alias       string `json:"alias"`
	Certificate string `json:"certificate"`
	// Protocol is "lxd" or "simplestreams".
	Protocol  string `json:"protocol"`
	Server    string `json:"server"`
	ImageType string `json:"image_type"`
}

// ImagesPost makes an image from a source that is not an upload.
type ImagesPost struct {
	ImagePut
	Filename string            `json:"filename"`
	Source   *ImagesPostSource `json:"source"`
	// CompressionAlgorithm is gzip, xz, zstd, bzip2, lzma or none, with options as in "xz -1".
	CompressionAlgorithm string       `json:"compression_algorithm"`
	Aliases              []ImageAlias `json:"aliases"`
}

// ImagesPostSource says what a new image is made from.
type ImagesPostSource struct {
	ImageSource
	// Mode is "pull" or "push".
	Mode string `json:"mode"`
	// Type is "image", "instance", "container", "virtual-machine", "snapshot"
	// or "url".
	Type string `json:"type"`
	URL  string `json:"url"`
	// Name is an instance, or instance/snapshot.
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Secret      string `json:"secret"`
	Project     string `json:"project"`
}

// ImageExportPost pushes an image to another server.
type ImageExportPost struct {
	Target      string       `json:"target"`
	Secret      string       `json:"secret"`
	Certificate string       `json:"certificate"`
	Aliases     []ImageAlias `json:"aliases"`
	Project     string       `json:"project"`
}

// ImageSecret is the metadata of the token operation that lets a stranger
// fetch a private image.
type ImageSecret struct {
	Secret string `json:"secret"`
}

// ImageMetadata is an image's metadata.yaml; an instance keeps a copy.
type ImageMetadata struct {
	Architecture string `json:"architecture"`
	// CreationDate and ExpiryDate are Unix seconds; 0 is never.
	CreationDate int64                             `json:"creation_date"`
	ExpiryDate   int64                             `json:"expiry_date"`
	Properties   map[string]string                 `json:"properties"`
	Templates    map[string]*ImageMetadataTemplate `json:"templates"`
}

// ImageMetadataTemplate is one file that is rendered into an instance; its key
// in the metadata is the path inside.
type ImageMetadataTemplate struct {
	// When lists "create", "copy", "start" and "rename".
	When []string `json:"when"`
	// CreateOnly leaves a file alone that is there already.
	CreateOnly bool `json:"create_only"`
	// Template is the file's name in the image's templates directory.
	Template   string            `json:"template"`
	Properties map[string]string `json:"properties"`
}
