package image

import (
	"context"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/flosch/pongo2/v6"

	"muster/state"
)

// maxTemplate is the largest template file that is rendered, in bytes.
const maxTemplate = 1 << 20

// Render renders the templates that spec.Trigger calls for, sorted by path. It
// reads nothing of the host but spec.TemplatesDir. A template that cannot be
// rendered is state.ErrInvalid and names the template.
//
// Templates see the variables of LXD's image format: trigger, path, instance
// and container (name, architecture, privileged, ephemeral, all strings),
// config, devices, properties, and the function config_get(key, default).
func Render(ctx context.Context, spec RenderSpec) ([]Rendered, error) {
	var files []Rendered
	for _, target := range slices.Sorted(maps.Keys(spec.Metadata.Templates)) {
		template := spec.Metadata.Templates[target]
		if !slices.Contains(template.When, spec.Trigger) {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		content, err := spec.render(target, template)
		if err != nil {
			return nil, state.Errorf(state.ErrInvalid, "template %s for %s: %w", shown(template.Template), shown(target), err)
		}
		files = append(files, Rendered{Path: path.Clean(target), Content: content, CreateOnly: template.CreateOnly})
	}
	return files, nil
}

func (s RenderSpec) render(target string, template Template) ([]byte, error) {
	if filepath.Base(template.Template) != template.Template {
		return nil, state.Errorf(state.ErrInvalid, "want the name of a file in the templates directory")
	}
	text, err := readLimited(filepath.Join(s.TemplatesDir, template.Template), maxTemplate)
	if err != nil {
		return nil, err
	}
	parsed, err := sandbox().FromBytes(text)
	if err != nil {
		return nil, err
	}
	yes := map[bool]string{true: "true", false: "false"}
	instance := map[string]string{
		"name": s.Name, "architecture": s.Architecture,
		"privileged": yes[s.Privileged], "ephemeral": yes[s.Ephemeral],
	}
	return parsed.ExecuteBytes(pongo2.Context{
		"trigger": string(s.Trigger), "path": target, "instance": instance, "container": instance,
		"config": s.Config, "devices": s.Devices, "properties": template.Properties,
		"config_get": func(key, otherwise *pongo2.Value) *pongo2.Value {
			if value, set := s.Config[key.String()]; set {
				return pongo2.AsValue(value)
			}
			return otherwise
		},
	})
}

// sandbox is a set of templates that can't reach the host: no tag that reads
// another file works, and no file is ever loaded.
var sandbox = sync.OnceValue(func() *pongo2.TemplateSet {
	set := pongo2.NewSet("images", noFiles{})
	for _, tag := range []string{"include", "import", "extends", "ssi"} {
		if err := set.BanTag(tag); err != nil {
			panic(err) // the tag is pongo2's own, and the set is new
		}
	}
	return set
})

// noFiles refuses to load templates.
type noFiles struct{}

// Abs implements pongo2.TemplateLoader.
func (noFiles) Abs(_, name string) string { return name }

// Get implements pongo2.TemplateLoader.
func (noFiles) Get(name string) (io.Reader, error) {
	return nil, state.Errorf(state.ErrInvalid, "a template can't load %s", shown(name))
}
