package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"muster/state"
)

// A client that has been removed, or restricted, lets nobody in any more: neither with a
// request that was under way, nor with a token that it made before.
func TestWhoIsOutLetsNobodyIn(t *testing.T) {
	s := open(t, t.TempDir())
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	token := func(id string) Command {
		return AddToken{Token: state.Token{ID: id, Purpose: "client", SecretHash: "hash"}}
	}
	for name, end := range map[string]Command{
		"removed":    DeleteCertificate{Fingerprint: "maker"},
		"restricted": UpdateCertificate{Fingerprint: "maker", Type: "client", Restricted: true},
		"metrics":    UpdateCertificate{Fingerprint: "maker", Type: "metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, s, AddCertificate{Certificate: state.Certificate{Fingerprint: "maker", Type: "client"}})
			must(t, s, AddCertificate{Certificate: state.Certificate{Fingerprint: "other", Type: "client"}})
			asks := WithRequestor(t.Context(), Requestor{Username: "maker", Protocol: "tls"})
			apply := func(ctx context.Context, command Command) error {
				_, err := s.Apply(ctx, command)
				return err
			}
			for _, id := range []string{"used", "kept"} {
				if err := apply(asks, token(name+id)); err != nil {
					t.Fatal(err)
				}
			}
			must(t, s, ConsumeToken{ID: name + "used", SecretHash: "hash", Now: at, Maker: "maker"})
			must(t, s, end)
			for _, command := range []Command{
				AddCertificate{Certificate: state.Certificate{Fingerprint: "friend", Type: "client"}},
				UpdateCertificate{Fingerprint: "other", Type: "client", Name: "friend"},
				token(name + "late"),
				SetSettings{Cluster: map[string]string{"core.trust_password": "hash"}},
				ConsumeToken{ID: name + "kept", SecretHash: "hash", Now: at, Maker: "maker"},
			} {
				if err := apply(asks, command); !errors.Is(err, state.ErrForbidden) {
					t.Errorf("%s: %v; want ErrForbidden", command.name(), err)
				}
			}
			if name != "removed" {
				must(t, s, DeleteCertificate{Fingerprint: "maker"})
			}
			must(t, s, DeleteCertificate{Fingerprint: "other"})
		})
	}
	consistent(t, s)
}
