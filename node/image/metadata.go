package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	// Images of stock tools have triggers besides the known ones, such as ""; on
	// those nothing is rendered.
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

// rendered reports whether some trigger calls for t.
func (t Template) rendered() bool {
	return slices.ContainsFunc(t.When, func(when Trigger) bool {
		return slices.Contains([]Trigger{TriggerCreate, TriggerCopy, TriggerRename, TriggerStart}, when)
	})
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
	if err := checkTexts(m.Properties); err != nil {
		return invalid("property %w", err)
	}
	for _, target := range slices.Sorted(maps.Keys(m.Templates)) {
		t := m.Templates[target]
		switch {
		case !path.IsAbs(target) || path.Clean(target) != target || target == "/" || !isText(target) || len(target) > maxName:
			return invalid("template path %s: want an absolute path of a file, without \"..\" or doubled slashes", shown(target))
		case t.Template == "" && !t.rendered():
		case t.Template == "" || !fs.ValidPath(t.Template) || t.Template == "." || !isText(t.Template) || len(t.Template) > maxName:
			return invalid("template %s: want the name of a file in templates/, not %s", shown(target), shown(t.Template))
		}
		if err := checkTexts(t.Properties); err != nil {
			return invalid("template %s: property %w", shown(target), err)
		}
		for _, when := range t.When {
			if !isText(string(when)) {
				return invalid("template %s: \"when\" %s is not text", shown(target), shown(string(when)))
			}
		}
	}
	return nil
}

// checkTexts refuses keys and values that no metadata.yaml can hold.
func checkTexts(texts map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		if key == "" || !isText(key) || !isText(texts[key]) {
			return fmt.Errorf("%s: want a name and a value that are text", shown(key))
		}
	}
	return nil
}

// isText reports whether s is UTF-8 without control characters but line breaks
// and tabs.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
}

// Encode returns m as a metadata.yaml; equal metadata give equal bytes.
//
// Every text is quoted: then no reader takes the release 22.10 for a number.
func (m Metadata) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	texts := func(indent, name string, values map[string]string) {
		if len(values) == 0 {
			return
		}
		fmt.Fprintf(&out, "%s%s:\n", indent, name)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&out, "%s  %s: %s\n", indent, quoted(key), quoted(values[key]))
		}
	}
	fmt.Fprintf(&out, "architecture: %s\ncreation_date: %d\n", quoted(m.Architecture), m.CreationDate)
	if m.ExpiryDate != 0 {
		fmt.Fprintf(&out, "expiry_date: %d\n", m.ExpiryDate)
	}
	texts("", "properties", m.Properties)
	if len(m.Templates) > 0 {
		out.WriteString("templates:\n")
	}
	for _, target := range slices.Sorted(maps.Keys(m.Templates)) {
		t := m.Templates[target]
		fmt.Fprintf(&out, "  %s:\n    when: [", quoted(target))
		for i, when := range t.When {
			out.WriteString([]string{"", ", "}[min(i, 1)] + quoted(string(when)))
		}
		fmt.Fprintf(&out, "]\n    create_only: %t\n    template: %s\n", t.CreateOnly, quoted(t.Template))
		texts("    ", "properties", t.Properties)
	}
	if out.Len() > MaxMetadata {
		return nil, state.Errorf(state.ErrInvalid, "image metadata have %d bytes; at most %d are allowed", out.Len(), MaxMetadata)
	}
	return out.Bytes(), nil
}

// quoted is a text in YAML's double quotes, whose escapes are JSON's.
func quoted(text string) string {
	encoded, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return string(encoded)
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
