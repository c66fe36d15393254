package store

import (
	"context"
	"errors"

	"muster/state"
	"muster/state/store/sqlgen"
)

// AddCertificate puts a certificate into the trust store; ErrExists when its
// fingerprint is there.
type AddCertificate struct {
	Certificate state.Certificate
	Hint        Hint
}

// UpdateCertificate replaces what is recorded of a certificate. When PEM and
// NewFingerprint are given, the certificate itself is replaced too.
type UpdateCertificate struct {
	Fingerprint    string
	Type           string
	Name           string
	Restricted     bool
	Projects       []string
	PEM            string
	NewFingerprint string
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteCertificate takes a certificate, named by its full fingerprint, out of the
// trust store.
type DeleteCertificate struct {
	Fingerprint    string
	ExpectRevision state.Revision
	Hint           Hint
}

func (AddCertificate) name() string { return "add-certificate" }

func (c AddCertificate) apply(ctx context.Context, t *tx) error {
	if err := t.mayGrant(ctx, t.requestor.Fingerprint()); err != nil {
		return err
	}
	return t.addCertificate(ctx, c.Certificate, c.Hint)
}

func (t *tx) addCertificate(ctx context.Context, c state.Certificate, hint Hint) error {
	if err := nameable("certificate", c.Fingerprint); err != nil {
		return err
	}
	err := t.q.InsertCertificate(ctx, sqlgen.InsertCertificateParams{
		Fingerprint: c.Fingerprint, Type: c.Type, Name: c.Name, Pem: c.PEM, Restricted: c.Restricted,
		Projects: encodeList(c.Projects), Revision: t.rev(),
	})
	if err != nil {
		if err := fresh(err, "certificate %q", c.Fingerprint); !errors.Is(err, state.ErrExists) {
			return err
		}
		// Clients go by these words (Ansible's modules).
		return state.Errorf(state.ErrExists, "Certificate already in trust store")
	}
	t.record(KindCertificate, &c, hint, "certificate-created")
	return nil
}

func (UpdateCertificate) name() string { return "update-certificate" }

func (c UpdateCertificate) apply(ctx context.Context, t *tx) error {
	if err := t.mayGrant(ctx, t.requestor.Fingerprint()); err != nil {
		return err
	}
	before, err := t.certificate(ctx, c.Fingerprint, c.ExpectRevision)
	if err != nil {
		return err
	}
	after := *before
	after.Type, after.Name, after.Restricted, after.Projects = c.Type, c.Name, c.Restricted, c.Projects
	if c.PEM != "" && c.NewFingerprint != "" {
		after.PEM, after.Fingerprint = c.PEM, c.NewFingerprint
	}
	err = t.q.UpdateCertificate(ctx, sqlgen.UpdateCertificateParams{
		NewFingerprint: after.Fingerprint, Type: after.Type, Name: after.Name, Pem: after.PEM, Restricted: after.Restricted,
		Projects: encodeList(after.Projects), Revision: t.rev(), Fingerprint: c.Fingerprint,
	})
	if err != nil {
		return fresh(err, "certificate %q", after.Fingerprint)
	}
	if after.Fingerprint == before.Fingerprint {
		t.record(KindCertificate, &after, c.Hint, "certificate-updated")
	} else {
		t.recordRename(KindCertificate, before, &after, c.Hint, "certificate-updated")
	}
	return nil
}

func (DeleteCertificate) name() string { return "delete-certificate" }

func (c DeleteCertificate) apply(ctx context.Context, t *tx) error {
	certificate, err := t.certificate(ctx, c.Fingerprint, c.ExpectRevision)
	if err != nil {
		return err
	}
	if err := t.q.DeleteCertificate(ctx, c.Fingerprint); err != nil {
		return wrap(err, "delete certificate %q", c.Fingerprint)
	}
	t.recordDelete(KindCertificate, certificate, c.Hint, "certificate-deleted")
	return nil
}

// mayGrant refuses with ErrForbidden that somebody lets others in whose own certificate is
// no longer in the trust store, or no longer unrestricted. The requests of a client that is
// removed may still be under way: the order in the log decides. An empty fingerprint is
// somebody on the local socket, or a stranger with a token.
func (t *tx) mayGrant(ctx context.Context, fingerprint string) error {
	if fingerprint == "" {
		return nil
	}
	certificate, err := t.certificate(ctx, fingerprint, 0)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return state.Errorf(state.ErrForbidden, "not authorized: the client certificate that asks for this is not trusted any more")
	case err != nil:
		return err
	case certificate.Restricted || certificate.Type != "client":
		return state.Errorf(state.ErrForbidden, "not authorized: only unrestricted clients let others in")
	}
	return nil
}

func (t *tx) certificate(ctx context.Context, fingerprint string, want state.Revision) (*state.Certificate, error) {
	row, err := t.q.FindCertificate(ctx, fingerprint)
	if err != nil {
		return nil, found(err, "certificate %q", fingerprint)
	}
	if err := expect(want, row.Revision, "certificate %q", fingerprint); err != nil {
		return nil, err
	}
	return certificateNoun(row)
}

func certificateNoun(r sqlgen.Certificate) (*state.Certificate, error) {
	projects, err := decodeColumn[[]string](r.Projects)
	return &state.Certificate{
		Meta:        state.Meta{Revision: state.Revision(r.Revision)},
		Fingerprint: r.Fingerprint, Type: r.Type, Name: r.Name, PEM: r.Pem, Restricted: r.Restricted, Projects: projects,
	}, err
}
