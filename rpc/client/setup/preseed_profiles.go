package setup

import (
	"context"
	"fmt"
	"maps"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (p *planter) profiles(ctx context.Context, s Seed) error {
	for _, each := range s.Profiles {
		name, post, c := each.Name, each.ProfilesPost, p.in(each.Project)
		old, _, err := c.Profile(ctx, name)
		switch {
		case client.IsNotFound(err):
			if err = c.CreateProfile(ctx, post); err == nil {
				p.undo.add(func(ctx context.Context) error { return c.DeleteProfile(ctx, name) })
			}
		case err == nil:
			put := mergeProfile(old.ProfilePut, post.ProfilePut)
			if maps.Equal(put.Config, old.Config) && put.Description == old.Description &&
				maps.EqualFunc(put.Devices, old.Devices, maps.Equal[map[string]string, map[string]string]) {
				continue
			}
			if err = c.UpdateProfile(ctx, name, put, ""); err == nil {
				p.undo.add(func(ctx context.Context) error { return c.UpdateProfile(ctx, name, old.ProfilePut, "") })
			}
		}
		if err != nil {
			return fmt.Errorf("profile %s: %w", name, err)
		}
	}
	return nil
}

// mergeProfile lays keys over keys and whole devices over devices, as LXD's
// preseed does.
func mergeProfile(old, with api.ProfilePut) api.ProfilePut {
	put := api.ProfilePut{
		Config:      overlay(old.Config, with.Config),
		Description: orDefault(with.Description, old.Description),
		Devices:     make(map[string]map[string]string, len(old.Devices)),
	}
	maps.Copy(put.Devices, old.Devices)
	maps.Copy(put.Devices, with.Devices)
	return put
}

func (p *planter) certificates(ctx context.Context, s Seed) error {
	if len(s.Certificates) == 0 {
		return nil
	}
	trusted, err := p.c.Certificates(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, certificate := range trusted {
		known[certificate.Fingerprint] = true
	}
	for _, post := range s.Certificates {
		der, fingerprint, err := certificateDER(post.Certificate)
		if err != nil {
			return fmt.Errorf("certificate %q: %w", post.Name, err)
		}
		if known[fingerprint] {
			continue
		}
		post.Certificate = der
		post.Type = orDefault(post.Type, "client")
		if err := p.c.AddCertificate(ctx, post); err != nil {
			return fmt.Errorf("certificate %q: %w", post.Name, err)
		}
		p.undo.add(func(ctx context.Context) error { return p.c.DeleteCertificate(ctx, fingerprint) })
	}
	return nil
}
