package image

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"muster/state"
)

// MaxMetadata is how many bytes a metadata.yaml may have.
const MaxMetadata = 64 << 10

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

// ReadMetadata reads and checks dir/metadata.yaml, as Unpack leaves it. A
// missing file is state.ErrNotFound.
func ReadMetadata(dir string) (Metadata, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Metadata{}, err
	}
	defer root.Close()
	data, err := readLimitedIn(root, "metadata.yaml", MaxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return Metadata{}, state.Errorf(state.ErrNotFound, "there is no metadata.yaml beside the root file system")
	}
	if err != nil {
		return Metadata{}, err
	}
	return ParseMetadata(data)
}

// readLimitedIn reads a regular file of at most limit bytes. The last part of
// its name is no symbolic link, and none of the others leads out of root.
func readLimitedIn(root *os.Root, name string, limit int64) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, state.Errorf(state.ErrInvalid, "%s is not a regular file", shown(name))
	}
	if info.Size() > limit {
		return nil, state.Errorf(state.ErrInvalid, "%s has %d bytes; at most %d are allowed", shown(name), info.Size(), limit)
	}
	return root.ReadFile(name)
}

// Validate reports what is wrong with m, as state.ErrInvalid.
func (m Metadata) Validate() error {
	invalid := func(format string, args ...any) error {
		return state.Errorf(state.ErrInvalid, "image metadata: "+format, args...)
	}
	if err := checkArchitecture(m.Architecture); err != nil {
		return err
	}
	for name, date := range map[string]int64{"creation_date": m.CreationDate, "expiry_date": m.ExpiryDate} {
		// What JSON and clients can say of a date ends with the year 9999.
		if date < 0 || date > 253402300799 {
			return invalid("%s is %d; want seconds since 1970", name, date)
		}
	}
	for key := range m.Properties {
		if key == "" {
			return invalid("a property has no name")
		}
	}
	for _, target := range slices.Sorted(maps.Keys(m.Templates)) {
		t := m.Templates[target]
		switch {
		case !path.IsAbs(target) || path.Clean(target) != target || target == "/" || strings.ContainsRune(target, 0) || len(target) > maxName:
			return invalid("template path %s: want an absolute path of a file, without \"..\" or doubled slashes", shown(target))
		case t.Template == "" || !fs.ValidPath(t.Template) || t.Template == "." || strings.ContainsRune(t.Template, 0) || len(t.Template) > maxName:
			return invalid("template %s: want the name of a file in templates/, not %s", shown(target), shown(t.Template))
		}
		for _, when := range t.When {
			switch when {
			case TriggerCreate, TriggerCopy, TriggerRename, TriggerStart:
			default:
				return invalid("template %s: unknown \"when\" %s: use create, copy, rename or start", shown(target), shown(string(when)))
			}
		}
	}
	return nil
}

// Encode returns m as a metadata.yaml; equal metadata give equal bytes.
func (m Metadata) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode metadata.yaml: %w", err)
	}
	if len(data) > MaxMetadata {
		return nil, state.Errorf(state.ErrInvalid, "image metadata have %d bytes; at most %d are allowed", len(data), MaxMetadata)
	}
	return data, nil
}

func (m Metadata) info() Info {
	return Info{
		Architecture: m.Architecture,
		CreatedAt:    m.CreatedAt(),
		ExpiresAt:    m.ExpiresAt(),
		Properties:   m.Properties,
		Templates:    m.Templates,
		Type:         Type,
	}
}
