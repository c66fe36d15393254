package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/cluster"
	"muster/rpc/rest/password"
	"muster/state"
)

// admitting is a cluster with one join token, whose secret is "s".
type admitting struct{ MemberStore }

func (admitting) CheckJoin(_ context.Context, ask cluster.JoinQuestion) error {
	if ask.Secret != "s" {
		return fmt.Errorf("join: %w", cluster.ErrJoinSecret)
	}
	return state.Errorf(state.ErrInvalid, "the pool is not for you")
}

func (a admitting) AdmitMember(ctx context.Context, join cluster.JoinRequest) (cluster.JoinAnswer, error) {
	if err := a.CheckJoin(ctx, cluster.JoinQuestion{Secret: join.Secret}); errors.Is(err, state.ErrForbidden) {
		return cluster.JoinAnswer{}, err
	}
	return cluster.JoinAnswer{Certificate: "pem"}, nil
}

// Who guesses the secret of a join token is slowed down, whichever way it is shown;
// who knows it and asks for the wrong thing is not.
func TestGuessingAJoinTokenIsSlow(t *testing.T) {
	const source = "192.0.2.66"
	began := time.Now()
	for way, handle := range map[string]func(members, *http.Request) (any, error){"join": members.admit, "terms": members.terms} {
		x := members{store: admitting{}, damper: &password.Damper{}}
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
