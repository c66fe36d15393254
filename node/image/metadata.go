package image

import "time"

// Metadata is an image's metadata.yaml (LXD documentation, "Image format").
type Metadata struct {
	// Architecture is the name the kernel uses: x86_64, aarch64 …
	Architecture string `yaml:"architecture" json:"architecture"`
	// CreationDate and ExpiryDate are in seconds since 1970; zero is unset.
	CreationDate int64             `yaml:"creation_date" json:"creation_date"`
	ExpiryDate   int64             `yaml:"expiry_date,omitempty" json:"expiry_date"`
	Properties   map[string]string `yaml:"properties,omitempty" json:"properties"`
	// Templates maps an absolute path in the container to what renders it.
	Templates map[string]Template `yaml:"templates,omitempty" json:"templates"`
}

// Template says when and from what a file in the container is rendered.
type Template struct {
	When []Trigger `yaml:"when" json:"when"`
	// CreateOnly says to leave a file alone that exists already.
	CreateOnly bool `yaml:"create_only,omitempty" json:"create_only"`
	// Template names a file in the image's templates directory.
	Template   string            `yaml:"template" json:"template"`
	Properties map[string]string `yaml:"properties,omitempty" json:"properties"`
}

// CreatedAt returns the creation date, or the zero time.
func (m Metadata) CreatedAt() time.Time { return seconds(m.CreationDate) }

// ExpiresAt returns the expiry date, or the zero time.
func (m Metadata) ExpiresAt() time.Time { return seconds(m.ExpiryDate) }

func seconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// ParseMetadata reads and checks a metadata.yaml; what is wrong with it is
// state.ErrInvalid. Architecture names of other systems (amd64, arm64, armhf …)
// become the kernel's.
func ParseMetadata(data []byte) (Metadata, error) { return Metadata{}, errNotBuilt }

// ReadMetadata reads and checks dir/metadata.yaml, as Unpack leaves it.
func ReadMetadata(dir string) (Metadata, error) { return Metadata{}, errNotBuilt }

// Validate reports what is wrong with m, as state.ErrInvalid.
func (m Metadata) Validate() error { return errNotBuilt }

// Encode returns m as a metadata.yaml; equal metadata give equal bytes.
func (m Metadata) Encode() ([]byte, error) { return nil, errNotBuilt }
