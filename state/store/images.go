package store

import (
	"context"
	"slices"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// AddImage records an image whose files are complete; ErrExists when the project
// has that fingerprint.
type AddImage struct {
	Image state.Image
	// Aliases are made with it, pointing to it; an alias that exists is ErrExists.
	Aliases []state.ImageAlias
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// UpdateImage replaces what users may edit of an image.
type UpdateImage struct {
	Project        string
	Fingerprint    string
	Public         bool
	AutoUpdate     bool
	Properties     map[string]string
	Profiles       []string
	ExpiresAt      time.Time
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteImage forgets an image and its aliases: ErrConflict while an instance is
// being created from it, or while something else is under way for it than the
// intent named.
type DeleteImage struct {
	Project     string
	Fingerprint string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// SetImageUsed records when an image was last used. It makes no event.
type SetImageUsed struct {
	Project     string
	Fingerprint string
	At          time.Time
}

// AddImageMember records that a member holds an image's files. It makes no event
// and does nothing when that is known.
type AddImageMember struct {
	Project     string
	Fingerprint string
	Member      string
}

// RemoveImageMember records that a member no longer holds an image's files. It
// makes no event and does nothing when that is known.
type RemoveImageMember struct {
	Project     string
	Fingerprint string
	Member      string
}

func (AddImage) name() string { return "add-image" }

func (c AddImage) apply(ctx context.Context, t *tx) error {
	i := c.Image
	if err := nameable("image", i.Fingerprint); err != nil {
		return err
	}
	if _, err := t.project(ctx, i.Project); err != nil {
		return err
	}
	// The subject of the download need not be the fingerprint: it was not known.
	if c.IntentID != "" {
		if err := (End{ID: c.IntentID, Hint: silent}).apply(ctx, t); err != nil {
			return err
		}
	}
	source := ""
	if i.Source != nil {
		source = encode(i.Source)
	}
	err := t.q.InsertImage(ctx, sqlgen.InsertImageParams{
		Project: i.Project, Fingerprint: i.Fingerprint, Filename: i.Filename, Size: i.Size, Architecture: i.Architecture, Type: i.Type,
		Public: i.Public, AutoUpdate: i.AutoUpdate, Cached: i.Cached, Properties: encodeConfig(i.Properties), Profiles: encodeList(i.Profiles),
		Split: i.Split, CreatedAt: optional(i.CreatedAt), ExpiresAt: optional(i.ExpiresAt), LastUsedAt: optional(i.LastUsedAt),
		UploadedAt: optional(i.UploadedAt), Source: source, Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "image %q", short(i.Fingerprint))
	}
	slices.Sort(i.Members)
	for _, member := range i.Members {
		if err := t.holdImage(ctx, i.Project, i.Fingerprint, member); err != nil {
			return err
		}
	}
	t.record(KindImage, &i, c.Hint, "image-created")
	for _, alias := range c.Aliases {
		alias.Project, alias.Target = i.Project, i.Fingerprint
		if err := (CreateAlias{Alias: alias}).apply(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) holdImage(ctx context.Context, project, fingerprint, member string) error {
	err := t.q.InsertImageMember(ctx, sqlgen.InsertImageMemberParams{Project: project, Fingerprint: fingerprint, Member: member})
	if isCode(err, codeForeignKey) {
		return state.Errorf(state.ErrNotFound, "cluster member %q not found", member)
	}
	return wrap(err, "record that %q has image %q", member, short(fingerprint))
}

func (UpdateImage) name() string { return "update-image" }

func (c UpdateImage) apply(ctx context.Context, t *tx) error {
	i, err := t.image(ctx, c.Project, c.Fingerprint)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(i.Revision), "image %q", short(c.Fingerprint)); err != nil {
		return err
	}
	if err := t.idle(ctx, imageSubject(c.Project, c.Fingerprint)); err != nil {
		return err
	}
	i.Public, i.AutoUpdate, i.Properties, i.Profiles, i.ExpiresAt = c.Public, c.AutoUpdate, c.Properties, c.Profiles, c.ExpiresAt
	return t.saveImage(ctx, i, c.Hint, "image-updated")
}

func (t *tx) saveImage(ctx context.Context, i *state.Image, hint Hint, usual string) error {
	err := t.q.UpdateImage(ctx, sqlgen.UpdateImageParams{
		Public: i.Public, AutoUpdate: i.AutoUpdate, Properties: encodeConfig(i.Properties), Profiles: encodeList(i.Profiles),
		ExpiresAt: optional(i.ExpiresAt), LastUsedAt: optional(i.LastUsedAt), Revision: t.rev(), Project: i.Project, Fingerprint: i.Fingerprint,
	})
	if err != nil {
		return wrap(err, "update image %q", short(i.Fingerprint))
	}
	t.record(KindImage, i, hint, usual)
	return nil
}

func (DeleteImage) name() string { return "delete-image" }

func (c DeleteImage) apply(ctx context.Context, t *tx) error {
	i, err := t.image(ctx, c.Project, c.Fingerprint)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, imageSubject(c.Project, c.Fingerprint), c.IntentID); err != nil {
		return err
	}
	if err := t.imageUnheld(ctx, c.Project, c.Fingerprint); err != nil {
		return err
	}
	aliases, err := t.q.ListAliasesOf(ctx, sqlgen.ListAliasesOfParams{Project: c.Project, Target: c.Fingerprint})
	if err != nil {
		return wrap(err, "list the aliases of image %q", short(c.Fingerprint))
	}
	for _, row := range aliases {
		if err := (DeleteAlias{Project: row.Project, Name: row.Name}).apply(ctx, t); err != nil {
			return err
		}
	}
	if err := t.q.DeleteImage(ctx, sqlgen.DeleteImageParams{Project: c.Project, Fingerprint: c.Fingerprint}); err != nil {
		return wrap(err, "delete image %q", short(c.Fingerprint))
	}
	t.recordDelete(KindImage, i, c.Hint, "image-deleted")
	return nil
}

func (SetImageUsed) name() string { return "set-image-used" }

func (c SetImageUsed) apply(ctx context.Context, t *tx) error {
	return t.imageUsed(ctx, c.Project, c.Fingerprint, c.At)
}

func (t *tx) imageUsed(ctx context.Context, project, fingerprint string, at time.Time) error {
	i, err := t.image(ctx, project, fingerprint)
	if err != nil {
		return err
	}
	i.LastUsedAt = at.UTC()
	return t.saveImage(ctx, i, silent, "")
}

func (AddImageMember) name() string { return "add-image-member" }

func (c AddImageMember) apply(ctx context.Context, t *tx) error {
	i, err := t.image(ctx, c.Project, c.Fingerprint)
	if err != nil || slices.Contains(i.Members, c.Member) {
		return err
	}
	if err := t.holdImage(ctx, c.Project, c.Fingerprint, c.Member); err != nil {
		return err
	}
	i.Members = append(i.Members, c.Member)
	slices.Sort(i.Members)
	return t.saveImage(ctx, i, silent, "")
}

func (RemoveImageMember) name() string { return "remove-image-member" }

func (c RemoveImageMember) apply(ctx context.Context, t *tx) error {
	i, err := t.image(ctx, c.Project, c.Fingerprint)
	if err != nil || !slices.Contains(i.Members, c.Member) {
		return err
	}
	err = t.q.DeleteImageMember(ctx, sqlgen.DeleteImageMemberParams{Project: c.Project, Fingerprint: c.Fingerprint, Member: c.Member})
	if err != nil {
		return wrap(err, "record that %q no longer has image %q", c.Member, short(c.Fingerprint))
	}
	i.Members = slices.DeleteFunc(i.Members, func(m string) bool { return m == c.Member })
	return t.saveImage(ctx, i, silent, "")
}

// replaceImageProfile puts another profile, or none, in the place of one in the
// images of the project.
func (t *tx) replaceImageProfile(ctx context.Context, project, name, with string) error {
	images, err := loaders[KindImage](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range images {
		i := noun.(*state.Image)
		at := slices.Index(i.Profiles, name)
		if i.Project != project || at < 0 {
			continue
		}
		if with == "" {
			i.Profiles = slices.Delete(i.Profiles, at, at+1)
		} else {
			i.Profiles[at] = with
		}
		if err := t.saveImage(ctx, i, silent, ""); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) image(ctx context.Context, project, fingerprint string) (*state.Image, error) {
	row, err := t.q.FindImage(ctx, sqlgen.FindImageParams{Project: project, Fingerprint: fingerprint})
	if err != nil {
		return nil, found(err, "image %q", short(fingerprint))
	}
	return imageNoun(row.Image, row.Members)
}

func imageNoun(r sqlgen.Image, members string) (*state.Image, error) {
	i := &state.Image{
		Meta:    state.Meta{Revision: state.Revision(r.Revision)},
		Project: r.Project, Fingerprint: r.Fingerprint, Filename: r.Filename, Size: r.Size, Architecture: r.Architecture, Type: r.Type,
		Public: r.Public, AutoUpdate: r.AutoUpdate, Cached: r.Cached, Split: r.Split, CreatedAt: moment(r.CreatedAt), ExpiresAt: moment(r.ExpiresAt),
		LastUsedAt: moment(r.LastUsedAt), UploadedAt: moment(r.UploadedAt), Members: names(members),
	}
	var err error
	if i.Properties, err = decodeColumn[map[string]string](r.Properties); err != nil {
		return nil, err
	}
	if i.Profiles, err = decodeColumn[[]string](r.Profiles); err != nil {
		return nil, err
	}
	if r.Source != "" {
		i.Source, err = decodeColumn[*state.ImageSource](r.Source)
	}
	return i, err
}
