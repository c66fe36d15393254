package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/flosch/pongo2/v6"

	"muster/state"
)

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
		content, err := render(ctx, spec, target, template)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, state.Errorf(state.ErrInvalid, "template %s of %s: %w", shown(template.Template), shown(target), err)
		}
		files = append(files, Rendered{Path: target, Content: content, CreateOnly: template.CreateOnly})
	}
	return files, nil
}

func render(ctx context.Context, spec RenderSpec, target string, template Template) (content []byte, err error) {
	root, err := os.OpenRoot(spec.TemplatesDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	source, err := readLimitedIn(root, template.Template, maxTemplate)
	if err != nil {
		return nil, err
	}
	text, err := fence(string(source))
	if err != nil {
		return nil, err
	}
	// Images are anybody's, and the engine panics over a division by zero.
	defer func() {
		if r := recover(); r != nil {
			content, err = nil, fmt.Errorf("%v", r)
		}
	}()
	set, err := newSet()
	if err != nil {
		return nil, err
	}
	parsed, err := set.FromString(text)
	if err != nil {
		return nil, err
	}
	out := &bounded{}
	timed, cancel := context.WithTimeoutCause(ctx, maxRendering, fmt.Errorf("it takes longer than %s", maxRendering))
	defer cancel()
	if err := parsed.ExecuteWriterUnbuffered(variables(timed, spec, target, template), out); err != nil {
		return nil, err
	}
	if out.full {
		return nil, fmt.Errorf("it renders to more than %d bytes", maxRendered)
	}
	return out.content, nil
}

// variables are what a template sees. They are maps, strings and functions of
// ours: the engine would let a template call any method of anything else.
func variables(ctx context.Context, spec RenderSpec, target string, template Template) pongo2.Context {
	yes := map[bool]string{true: "true", false: "false"}
	instance := map[string]string{
		"name": spec.Name, "architecture": spec.Architecture,
		"privileged": yes[spec.Privileged], "ephemeral": yes[spec.Ephemeral],
	}
	rounds := 0
	return pongo2.Context{
		"trigger": string(spec.Trigger), "path": target,
		"instance": instance, "container": instance,
		"config": spec.Config, "devices": spec.Devices, "properties": template.Properties,
		"config_get": func(key, otherwise *pongo2.Value) *pongo2.Value {
			if value, set := spec.Config[key.String()]; set {
				return pongo2.AsValue(value)
			}
			return otherwise
		},
		roundCounter: func() (string, error) {
			if rounds++; rounds > maxRounds {
				return "", fmt.Errorf("its loops take more than %d rounds", maxRounds)
			}
			return "", context.Cause(ctx)
		},
	}
}

// bounded keeps what a template renders to. The engine does not heed that a
// write fails, so it remembers it.
type bounded struct {
	content []byte
	full    bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.full = b.full || len(b.content)+len(p) > maxRendered; b.full {
		return 0, io.ErrShortWrite
	}
	b.content = append(b.content, p...)
	return len(p), nil
}
