package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster/cluster"
	"muster/node/image"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// ImageStore takes in, makes and changes images; *cluster.Cluster is one.
type ImageStore interface {
	Image(ctx context.Context, project, fingerprint string) (*state.Image, error)
	// ImportImage reads the upload before it returns.
	ImportImage(ctx context.Context, spec cluster.ImageSpec, upload image.ImportSpec) (cluster.OperationInfo, error)
	PublishImage(ctx context.Context, spec cluster.PublishSpec) (cluster.OperationInfo, error)
	UpdateImage(ctx context.Context, changed state.Image, expect state.Revision) error
	DeleteImage(ctx context.Context, project, fingerprint string) (cluster.OperationInfo, error)
	ImageFiles(ctx context.Context, fingerprint string) (image.Files, error)
	// HaveImage gets the files of an image from another member, unless they are here.
	HaveImage(ctx context.Context, project, fingerprint string) error
	CreateImageSecret(ctx context.Context, project, fingerprint string) (cluster.OperationInfo, error)
	UseImageSecret(ctx context.Context, project, fingerprint, secret string) bool
	CreateAlias(ctx context.Context, alias state.ImageAlias) error
	UpdateAlias(ctx context.Context, alias state.ImageAlias, expect state.Revision) error
	RenameAlias(ctx context.Context, project, name, newName string) error
	DeleteAlias(ctx context.Context, project, name string) error
}

// images serves /1.0/images.
type images struct {
	view  func() *store.View
	store ImageStore
	// placement is nil on a server that never has others.
	placement Placement
}

func (x images) routes() []route {
	project := []parameter{projectParameter}
	secret := []parameter{projectParameter, secretParameter}
	return []route{
		{
			pattern: "GET /1.0/images", access: public, handle: x.list,
			summary: "List images", returns: []api.Image{}, query: []parameter{projectParameter, recursionParameter, filterParameter},
			description: "Callers who are not trusted see public images.",
		},
		{
			pattern: "POST /1.0/images", access: trusted, on: policy{place: x.place, host: true}, handle: x.create, streams: true,
			announces: []string{"image_compression_algorithm", "image_create_aliases"},
			summary:   "Upload an image, or publish an instance", body: api.ImagesPost{}, returns: api.Operation{}, async: true, query: project,
			description: "A body that is not JSON is a unified tarball, or multipart with the parts metadata and rootfs. " +
				"X-LXD-fingerprint, -filename, -public, -properties and -profiles describe it.",
		},
		{
			pattern: "GET /1.0/images/{fingerprint}", access: public, handle: x.get, tagged: true,
			summary: "Show an image", returns: api.Image{}, query: secret,
		},
		{
			pattern: "PUT /1.0/images/{fingerprint}", access: trusted, handle: x.put, tagged: true,
			summary: "Replace an image's properties", body: api.ImagePut{}, query: project,
		},
		{
			pattern: "PATCH /1.0/images/{fingerprint}", access: trusted, handle: x.patch, tagged: true,
			summary: "Change parts of an image's properties", body: api.ImagePut{}, query: project,
		},
		{
			pattern: "DELETE /1.0/images/{fingerprint}", access: trusted, handle: x.delete,
			summary: "Delete an image", returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "GET /1.0/images/{fingerprint}/export", access: public, on: imageHolder, tells: &news{action: "image-retrieved", source: "/1.0/images/{fingerprint}"}, handle: x.export, streams: true,
			summary: "Download an image", returns: rawBody{}, query: secret,
			description: "A split image is multipart, with the parts metadata and rootfs.",
		},
		{
			pattern: "GET /internal/images/{fingerprint}/{role}", access: trusted, handle: x.part, streams: true,
			summary: "Send another member a file of an image", returns: rawBody{},
			description: "Range is heeded, so that a stream that was cut can go on.",
		},
		{
			pattern: "POST /internal/images/{fingerprint}", access: trusted, handle: x.have, streams: true,
			summary: "Have this member get the files of an image from another", query: project,
		},
		{
			pattern: "POST /1.0/images/{fingerprint}/secret", access: trusted, tells: &news{action: "image-secret-created", source: "/1.0/images/{fingerprint}"}, handle: x.secret,
			summary: "Let somebody who is not trusted download the image once", returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "POST /1.0/images/{fingerprint}/refresh", access: trusted, handle: x.refresh,
			summary: "Update an image from its source", returns: api.Operation{}, async: true, query: project,
		},
	}
}

func imageURL(image *state.Image) string {
	return inProject("/1.0/images/"+image.Fingerprint, image.Project)
}

func showImage(view *store.View, image *state.Image) api.Image {
	shown := api.Image{
		ImagePut: api.ImagePut{
			AutoUpdate: image.AutoUpdate, Properties: orEmpty(image.Properties), Public: image.Public,
			ExpiresAt: orEpoch(image.ExpiresAt), Profiles: orNone(image.Profiles),
		},
		Aliases: []api.ImageAlias{}, Architecture: image.Architecture, Cached: image.Cached, Filename: image.Filename,
		Fingerprint: image.Fingerprint, Size: image.Size, Type: image.Type,
		CreatedAt: orEpoch(image.CreatedAt), LastUsedAt: orEpoch(image.LastUsedAt), UploadedAt: image.UploadedAt,
	}
	for _, alias := range view.AliasesOf(image.Project, image.Fingerprint) {
		shown.Aliases = append(shown.Aliases, api.ImageAlias{Name: alias.Name, Description: alias.Description})
	}
	if source := image.Source; source != nil {
		shown.UpdateSource = &api.ImageSource{Alias: source.Alias, Certificate: source.Certificate, Protocol: source.Protocol, Server: source.Server}
	}
	return shown
}

func (x images) list(r *http.Request) (any, error) {
	view, caller := x.view(), CallerOf(r.Context())
	all := view.Images(projectName(r))
	seen := make([]*state.Image, 0, len(all))
	for _, image := range all {
		if image.Public || caller.Sees(image.Project) {
			seen = append(seen, image)
		}
	}
	return listing(r, seen, rows[*state.Image]{url: imageURL, show: func(i *state.Image) any { return showImage(view, i) }})
}

// find returns the image if the caller may see it; who may not is told that
// there is none.
func (x images) find(r *http.Request) (*state.Image, error) {
	project, fingerprint := projectName(r), r.PathValue("fingerprint")
	found, err := x.store.Image(r.Context(), project, fingerprint)
	if err != nil {
		return nil, err
	}
	if found.Public || CallerOf(r.Context()).Sees(project) ||
		x.store.UseImageSecret(r.Context(), project, found.Fingerprint, r.URL.Query().Get("secret")) {
		return found, nil
	}
	return nil, state.Errorf(state.ErrNotFound, "image %q not found", fingerprint)
}

func (x images) get(r *http.Request) (any, error) {
	found, err := x.find(r)
	if err != nil {
		return nil, err
	}
	return tagged(etag(found.Revision), showImage(x.view(), found)), nil
}

func (x images) create(r *http.Request) (any, error) {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	var op cluster.OperationInfo
	switch kind {
	case "application/json":
		r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
		op, err = x.fromSource(r)
	case "multipart/form-data":
		reader := multipart.NewReader(r.Body, parameters["boundary"])
		op, err = x.upload(r, func() (image.Part, error) { return nextPart(reader) })
	default:
		// Clients of old send JSON without saying so.
		body := newPeeker(r.Body)
		if body.json() {
			r.Body = http.MaxBytesReader(nil, io.NopCloser(body), maxBody)
			op, err = x.fromSource(r)
		} else {
			op, err = x.upload(r, image.Parts(image.Part{Role: image.RoleUnified, Body: whole{body, r.ContentLength}.reader()}))
		}
	}
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

// nextPart reads the next file of a split image.
func nextPart(reader *multipart.Reader) (image.Part, error) {
	part, err := reader.NextPart()
	if err == io.EOF {
		return image.Part{}, io.EOF
	}
	if err != nil {
		return image.Part{}, state.Errorf(state.ErrInvalid, "the upload broke off: %w", err)
	}
	switch part.FormName() {
	case "metadata":
		return image.Part{Role: image.RoleMetadata, Body: part}, nil
	case "rootfs":
		return image.Part{Role: image.RoleRootFS, Body: part}, nil
	case "rootfs.img":
		return image.Part{}, errNoMachines
	}
	return image.Part{}, state.Errorf(state.ErrInvalid, "part %q: want metadata and rootfs", part.FormName())
}

func (x images) upload(r *http.Request, next func() (image.Part, error)) (cluster.OperationInfo, error) {
	spec := cluster.ImageSpec{
		Project: projectName(r), Filename: r.Header.Get("X-LXD-filename"), Properties: map[string]string{},
	}
	public, err := state.ParseBool(r.Header.Get("X-LXD-public"))
	if err != nil {
		return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid, "X-LXD-public: %w", err)
	}
	spec.Public = public
	properties, err := url.ParseQuery(r.Header.Get("X-LXD-properties"))
	if err != nil {
		return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid, "X-LXD-properties: want key=value&key=value: %w", err)
	}
	for key := range properties {
		spec.Properties[key] = properties.Get(key)
	}
	if profiles, err := url.ParseQuery(r.Header.Get("X-LXD-profiles")); err == nil {
		spec.Profiles = profiles["profile"]
	}
	if aliases, err := url.ParseQuery(r.Header.Get("X-LXD-aliases")); err == nil {
		for _, name := range aliases["alias"] {
			spec.Aliases = append(spec.Aliases, state.ImageAlias{Name: name})
		}
	}
	return x.store.ImportImage(r.Context(), spec, image.ImportSpec{Next: next, Fingerprint: strings.ToLower(r.Header.Get("X-LXD-fingerprint"))})
}

// place finds the host of the instance that an image is to be made of.
func (x images) place(r *http.Request, body []byte) (string, func(), error) {
	done := func() {}
	var req api.ImagesPost
	if err := json.Unmarshal(body, &req); err != nil || req.Source == nil {
		return "", done, nil //nolint:nilerr // create says it
	}
	switch req.Source.Type {
	case "instance", "container", "snapshot":
	default:
		return "", done, nil
	}
	name, _, _ := strings.Cut(req.Source.Name, "/")
	if x.placement == nil {
		return "", done, nil
	}
	owner, err := x.placement.Owner(r.Context(), Thing{Kind: "instance", Project: projectName(r), Name: name})
	return owner, done, err
}

// part sends one file of an image.
func (x images) have(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	return nil, x.store.HaveImage(r.Context(), projectName(r), r.PathValue("fingerprint"))
}

func (x images) part(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	parts, err := x.store.ImageFiles(r.Context(), r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	wanted := slices.IndexFunc(parts, func(f image.File) bool { return string(f.Role) == r.PathValue("role") })
	for i, part := range parts {
		if i != wanted {
			_ = part.Close() // only read
		}
	}
	if wanted < 0 {
		return nil, state.Errorf(state.ErrNotFound, "image %q has no part %q", r.PathValue("fingerprint"), r.PathValue("role"))
	}
	return file{content: parts[wanted], name: parts[wanted].Name, modified: parts[wanted].ModifiedAt}, nil
}

// fromSource makes an image of what a JSON body names.
func (x images) fromSource(r *http.Request) (cluster.OperationInfo, error) {
	req, err := decode[api.ImagesPost](r)
	if err != nil {
		return cluster.OperationInfo{}, err
	}
	if req.Source == nil {
		return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid, "\"source\" is missing: say what to make the image of")
	}
	spec := cluster.PublishSpec{ImageSpec: cluster.ImageSpec{
		Project: projectName(r), Filename: req.Filename, Public: req.Public, Properties: req.Properties, Profiles: req.Profiles,
		ExpiresAt: req.ExpiresAt,
	}, Compression: req.CompressionAlgorithm}
	for _, alias := range req.Aliases {
		spec.Aliases = append(spec.Aliases, state.ImageAlias{Name: alias.Name, Description: alias.Description})
	}
	switch req.Source.Type {
	case "instance", "container":
		spec.Instance = req.Source.Name
	case "snapshot":
		spec.Instance, spec.Snapshot, _ = strings.Cut(req.Source.Name, "/")
		if spec.Snapshot == "" {
			return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid, "source name %q: want instance/snapshot", req.Source.Name)
		}
	case "virtual-machine":
		return cluster.OperationInfo{}, errNoMachines
	case "image", "url":
		return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid,
			"source type %q: images are not fetched from other servers yet; export the image there and upload the file here", req.Source.Type)
	default:
		return cluster.OperationInfo{}, state.Errorf(state.ErrInvalid, "source type %q: want instance or snapshot", req.Source.Type)
	}
	return x.store.PublishImage(r.Context(), spec)
}

func (x images) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.ImagePut](r)
	if err != nil {
		return nil, err
	}
	found, err := x.find(r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateImage(r.Context(), changedImage(found, req), expect)
}

func changedImage(found *state.Image, req api.ImagePut) state.Image {
	changed := *found
	changed.AutoUpdate, changed.Public, changed.Properties, changed.Profiles = req.AutoUpdate, req.Public, withoutEmpty(req.Properties), req.Profiles
	changed.ExpiresAt = req.ExpiresAt
	if req.ExpiresAt.Unix() <= 0 {
		changed.ExpiresAt = time.Time{}
	}
	return changed
}

func (x images) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		found, err := x.find(r)
		if err != nil {
			return 0, nil, err
		}
		req := showImage(x.view(), found).ImagePut
		// The View's own, over which the change would be laid.
		req.Properties, req.Profiles = orEmpty(maps.Clone(req.Properties)), slices.Clone(req.Profiles)
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return found.Revision, func(expect state.Revision) error {
			return x.store.UpdateImage(r.Context(), changedImage(found, req), expect)
		}, nil
	})
}

func (x images) delete(r *http.Request) (any, error) {
	op, err := x.store.DeleteImage(r.Context(), projectName(r), r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x images) secret(r *http.Request) (any, error) {
	op, err := x.store.CreateImageSecret(r.Context(), projectName(r), r.PathValue("fingerprint"))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x images) refresh(r *http.Request) (any, error) {
	found, err := x.find(r)
	if err != nil {
		return nil, err
	}
	return nil, state.Errorf(state.ErrInvalid, "image %.12s was uploaded: there is no source to update it from", found.Fingerprint)
}

func (x images) export(r *http.Request) (any, error) {
	found, err := x.find(r)
	if err != nil {
		return nil, err
	}
	parts, err := x.store.ImageFiles(r.Context(), found.Fingerprint)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		// When this member's copy was written is no news of the image, and differs by member.
		return file{content: parts[0], name: parts[0].Name, modified: found.UploadedAt}, nil
	}
	return splitExport{parts}, nil
}

// splitExport answers with several files at once.
type splitExport struct{ parts image.Files }

func (s splitExport) write(w http.ResponseWriter, r *http.Request) error {
	defer s.parts.Close()
	form := multipart.NewWriter(w)
	w.Header().Set("Content-Type", form.FormDataContentType())
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	for _, part := range s.parts {
		header := textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf("form-data; name=%q; filename=%q", string(part.Role), part.Name)},
			"Content-Type":        {"application/octet-stream"},
		}
		out, err := form.CreatePart(header)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, part); err != nil {
			return err
		}
	}
	return form.Close()
}

// peeker looks at the first byte of a body that does not say what it is.
type peeker struct {
	io.Reader
	first byte
}

func newPeeker(body io.Reader) *peeker {
	first := make([]byte, 1)
	count, _ := io.ReadFull(body, first)
	return &peeker{io.MultiReader(strings.NewReader(string(first[:count])), body), first[0]}
}

func (p *peeker) json() bool { return p.first == '{' }

// whole is a body with its announced length.
type whole struct {
	body   io.Reader
	length int64
}

// reader fails when the body ends before its announced length: the transport only
// notices for connections that it frames itself.
func (w whole) reader() io.Reader {
	if w.length <= 0 {
		return w.body
	}
	return &counted64{w.body, w.length}
}

type counted64 struct {
	body io.Reader
	left int64
}

func (c *counted64) Read(buffer []byte) (int, error) {
	count, err := c.body.Read(buffer)
	c.left -= int64(count)
	if err == io.EOF && c.left > 0 {
		return count, io.ErrUnexpectedEOF
	}
	return count, err
}
