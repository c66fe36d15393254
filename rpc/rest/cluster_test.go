package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/cluster"
	"muster/cluster/pki"
	"muster/rpc/rest/api"
	"muster/rpc/rest/password"
	"muster/state"
	"muster/state/store"
)

// admitting is a cluster with one join token, whose secret is "s".
type admitting struct{ MemberStore }

func (admitting) CheckJoin(_ context.Context, ask cluster.JoinQuestion) error {
	if ask.Secret != "s" && !ask.ByPassword {
		return fmt.Errorf("join: %w", cluster.ErrJoinSecret)
	}
	return state.Errorf(state.ErrInvalid, "the pool is not for you")
}

func (a admitting) AdmitMember(ctx context.Context, join cluster.JoinRequest) (cluster.JoinAnswer, error) {
	if err := a.CheckJoin(ctx, cluster.JoinQuestion{Secret: join.Secret, ByPassword: join.ByPassword}); errors.Is(err, state.ErrForbidden) {
		return cluster.JoinAnswer{}, err
	}
	return cluster.JoinAnswer{Certificate: "pem"}, nil
}

// trustingStore is a store with a trust password.
func trustingStore(t *testing.T, secret string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(t.TempDir(), "database"), Member: state.Member{ID: memberID, Name: "ant"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing is left to lose
	hash, err := password.Hash(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), store.SetSettings{Cluster: map[string]string{trustPassword: hash}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// A server joins by a token, the secret of one, or the trust password, wherever a client
// writes it.
func TestWhatAServerJoinsBy(t *testing.T) {
	token := api.ClusterMemberJoinToken{ServerName: "bee", Fingerprint: "f1", Addresses: []string{"192.0.2.1:8443", "192.0.2.2:8443"}, Secret: "s"}
	leaf := selfSigned(t, "cluster", time.Now().Add(time.Hour))
	pem := pki.EncodeCertificate(leaf.Leaf)
	pinned := pki.Fingerprint(leaf.Leaf)
	for name, tc := range map[string]struct {
		put   api.ClusterPut
		want  JoinSpec
		words string
	}{
		"a token": {
			put:  api.ClusterPut{ClusterToken: token.String()},
			want: JoinSpec{Name: "bee", Addresses: token.Addresses, Fingerprint: "f1", Secret: "s"},
		},
		"a whole token as the password, as stock clients send it": {
			put:  api.ClusterPut{ClusterPassword: token.String(), ClusterAddress: "192.0.2.2:8443", ClusterCertificate: pem},
			want: JoinSpec{Name: "bee", Addresses: []string{"192.0.2.2:8443", "192.0.2.1:8443"}, Fingerprint: "f1", Secret: "s"},
		},
		"the trust password": {
			put:  api.ClusterPut{ClusterPassword: "sesame", ClusterAddress: "192.0.2.2:8443", ClusterCertificate: pem, Cluster: api.Cluster{ServerName: "bee"}},
			want: JoinSpec{Name: "bee", Addresses: []string{"192.0.2.2:8443"}, Fingerprint: pinned, Secret: "sesame"},
		},
		"nothing": {
			put: api.ClusterPut{ClusterAddress: "192.0.2.2:8443", ClusterCertificate: pem, Cluster: api.Cluster{ServerName: "bee"}}, words: "cluster_password",
		},
		"a password without the cluster's certificate": {
			put: api.ClusterPut{ClusterPassword: "sesame", ClusterAddress: "192.0.2.2:8443", Cluster: api.Cluster{ServerName: "bee"}}, words: "cluster_certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := joinSpec(tc.put)
			if tc.words != "" {
				if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("%v; want a refusal that names %s", err, tc.words)
				}
				return
			}
			tc.want.Pools, tc.want.Networks = map[string]state.Config{}, map[string]state.Config{}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// Who guesses the secret of a join token is slowed down, whichever way it is shown;
// who knows it and asks for the wrong thing is not.
func TestGuessingAJoinTokenIsSlow(t *testing.T) {
	const source = "192.0.2.66"
	began := time.Now()
	trusting := trustingStore(t, "sesame")
	for way, handle := range map[string]func(members, *http.Request) (any, error){"join": members.admit, "terms": members.terms} {
		x := members{view: trusting.View, store: admitting{}, damper: &password.Damper{}}
		show := func(secret string, handle func(members, *http.Request) (any, error)) error {
			request := httptest.NewRequestWithContext(
				WithCaller(t.Context(), Caller{Trust: Untrusted, Address: source + ":4711"}), http.MethodPost, "/internal/join", strings.NewReader(`{"secret":"`+secret+`"}`),
			)
			_, err := handle(x, request)
			return err
		}
		for range 4 {
			if err := show("s", members.terms); !errors.Is(err, state.ErrInvalid) {
				t.Errorf("%s: a pool that is not for it: %v", way, err)
			}
		}
		for range 3 {
			if err := show("x", handle); !errors.Is(err, cluster.ErrJoinSecret) {
				t.Errorf("%s: a wrong secret: %v", way, err)
			}
		}
		if x.damper.Wait(source, began) == 0 {
			t.Errorf("%s: three wrong secrets cost nothing", way)
		}
		for range 5 {
			x.damper.Wrong(source, time.Now())
		}
		for _, handle := range []func(members, *http.Request) (any, error){members.admit, members.terms} {
			if err := show("s", handle); !errors.Is(err, state.ErrForbidden) || !strings.Contains(err.Error(), "too many wrong join tokens") {
				t.Errorf("%s: after many wrong secrets: %v", way, err)
			}
		}
		x.damper.Right(source)
		x.damper.Wrong(source, time.Now())
		if err := show("s", members.admit); err != nil {
			t.Errorf("%s: the right secret: %v", way, err)
		}
		if err := show("sesame", members.admit); err != nil {
			t.Errorf("%s: the trust password: %v", way, err)
		}
		for range 2 {
			x.damper.Wrong(source, time.Now())
		}
		if x.damper.Wait(source, began) != 0 {
			t.Errorf("%s: the right secret does not forgive what was wrong before", way)
		}
	}
}

// A change is read over what is shown: that must leave the member as it is.
func TestAShownMemberIsACopy(t *testing.T) {
	m := cluster.MemberInfo{
		Member: &state.Member{Config: state.Config{"user.a": "1"}, Groups: []string{"default"}}, Roles: []string{"database"},
	}
	req := showMember(m).ClusterMemberPut
	if err := json.Unmarshal([]byte(`{"roles":["king"],"groups":["other"],"config":{"user.a":"2"}}`), &req); err != nil {
		t.Fatal(err)
	}
	if m.Roles[0] != "database" || m.Groups[0] != "default" || m.Config["user.a"] != "1" {
		t.Errorf("the member became %+v", m)
	}
	if _, err := memberChange(req); err == nil {
		t.Error("a client gave a member another role")
	}
}
