package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// imageSource says where the server that creates an instance gets the image:
// from its own store, or by downloading from another remote.
func (a *app) imageSource(ctx context.Context, t thing, image string) (api.InstanceSource, error) {
	// Without a remote of its own, the image is looked for where the instance
	// goes to.
	if !strings.Contains(image, ":") {
		image = t.remote + ":" + image
	}
	from, err := a.named(image, "image")
	if err != nil {
		return api.InstanceSource{}, err
	}
	if from.remote != t.remote {
		return a.foreignImage(ctx, from)
	}
	found, _, err := t.ResolveImage(ctx, from.name)
	if client.IsNotFound(err) {
		return api.InstanceSource{}, advise(fmt.Errorf("there is no image %q", from.name), "%s", imageAdvice(from.name))
	}
	if err != nil {
		return api.InstanceSource{}, err
	}
	return api.InstanceSource{Type: "image", Fingerprint: found.Fingerprint}, nil
}

// debianReleases are the releases of Debian by their numbers.
var debianReleases = map[string]string{"11": "bullseye", "12": "bookworm", "13": "trixie"}

// imageAdvice says how to get an image that is not there. Images are built here,
// not fetched: there is no image server to ask.
func imageAdvice(name string) string {
	system, release, _ := strings.Cut(name, "/")
	release, _, _ = strings.Cut(release, "/")
	switch system {
	case "debian":
		suite := cmp.Or(debianReleases[release], release, "bookworm")
		return fmt.Sprintf("`muster image list` shows what there is; one of Debian is made with `muster image build debian --suite %s --alias %s`.", suite, name)
	case "busybox":
		return "`muster image list` shows what there is; this one is made with `muster image build busybox`."
	}
	return "`muster image list` shows what there is; images are made with `muster image build busybox` (small) or `muster image build debian`, or brought with `muster image import FILE`."
}

// foreignImage lets the target download from the other server, with a secret
// when the image is private.
func (a *app) foreignImage(ctx context.Context, from thing) (api.InstanceSource, error) {
	config, err := a.config()
	if err != nil {
		return api.InstanceSource{}, err
	}
	if from.Local() {
		return api.InstanceSource{}, advise(
			fmt.Errorf("the image is on %s, which other servers can't reach", from.remote),
			"Copy it first: `muster image copy %s:%s REMOTE:`.", from.remote, from.name)
	}
	image, _, err := from.ResolveImage(ctx, from.name)
	if err != nil {
		return api.InstanceSource{}, fmt.Errorf("image %s:%s: %w", from.remote, from.name, err)
	}
	server, _, err := from.Server(ctx)
	if err != nil {
		return api.InstanceSource{}, err
	}
	source := api.InstanceSource{
		Type: "image", Mode: "pull", Protocol: "lxd", Fingerprint: image.Fingerprint,
		Server: config.Remotes[from.remote].Addr, Certificate: server.Environment.Certificate,
		Project: from.Project(),
	}
	if !image.Public {
		op, err := from.ImageSecret(ctx, image.Fingerprint)
		if err != nil {
			return source, fmt.Errorf("ask %s for a secret: %w", from.remote, err)
		}
		source.Secret, _ = op.Metadata["secret"].(string)
	}
	return source, nil
}
