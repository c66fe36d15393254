package image

import "context"

// Render renders the templates that spec.Trigger calls for, sorted by path. It
// reads nothing of the host but spec.TemplatesDir. A template that cannot be
// rendered is state.ErrInvalid and names the template.
//
// Templates see the variables of LXD's image format: trigger, path, instance
// and container (name, architecture, privileged, ephemeral, all strings),
// config, devices, properties, and the function config_get(key, default).
func Render(ctx context.Context, spec RenderSpec) ([]Rendered, error) {
	return nil, errNotBuilt
}
