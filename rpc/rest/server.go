package rest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/rpc/rest/password"
	"muster/state"
)

// SettingStore changes the server's configuration.
type SettingStore interface {
	// UpdateSettings replaces the configuration, keys of the whole cluster and of
	// this member together: a key that config lacks is unset. It checks every key
	// and value first, and takes effect before it returns. expectCluster and
	// expectMember, when not zero, are what View.SettingsRevision must still say
	// of the two; otherwise it is state.ErrStale. The value of
	// core.trust_password is a hash already.
	UpdateSettings(ctx context.Context, config state.Config, expectCluster, expectMember state.Revision) error
}

// server serves / and /1.0.
type server struct {
	cfg Config
	// extensions are this member's own.
	extensions []string
}

func (x server) routes() []route {
	routes := []route{
		{
			pattern: "GET /{$}", access: public, handle: x.versions,
			summary: "List the versions of the API", returns: []string{},
		},
		{
			pattern: "GET /1.0", access: public, on: toTarget, handle: x.get,
			summary: "Show the server", returns: api.Server{}, tagged: true,
			description: "Untrusted callers see the first keys only: neither configuration nor environment.",
			query:       []parameter{targetParameter, projectParameter},
		},
	}
	routes = append(routes, route{
		pattern: "GET /1.0/metadata/configuration", access: trusted, handle: x.keys,
		summary: "List the keys of the server's configuration", returns: api.MetadataConfiguration{},
		description: "Keys that are stored and have no effect yet are marked as inert.",
	})
	if x.cfg.SharedExtensions != nil {
		routes = append(routes, route{
			pattern: "GET /internal/release", access: admin, handle: x.release,
			summary: "Say what this member runs", returns: cluster.Release{},
		})
	}
	if x.cfg.Settings == nil {
		return routes
	}
	return append(routes, []route{
		{
			pattern: "PUT /1.0", access: admin, on: toTarget, handle: x.put,
			summary: "Replace the server's configuration", body: api.ServerPut{}, tagged: true, query: []parameter{targetParameter},
		},
		{
			pattern: "PATCH /1.0", access: admin, on: toTarget, handle: x.patch,
			summary: "Change keys of the server's configuration", body: api.ServerPut{}, tagged: true, query: []parameter{targetParameter},
			description: "Keys that the body leaves out stay as they are; an empty value unsets a key.",
		},
	}...)
}

func (server) versions(*http.Request) (any, error) { return []string{"/1.0"}, nil }

// keys lists the keys of the server's configuration, by what comes before their first dot.
func (server) keys(*http.Request) (any, error) {
	groups := map[string]api.MetadataConfigurationGroup{}
	for _, key := range state.ServerKeys() {
		name := key.Name
		if strings.HasSuffix(name, ".") {
			name += "*"
		}
		group, _, _ := strings.Cut(name, ".")
		shown := api.MetadataConfigurationKey{ShortDesc: key.Help, DefaultDesc: key.Default, Scope: "global", Inert: key.Inert}
		if key.Member {
			shown.Scope = "local"
		}
		all := groups[group]
		all.Keys = append(all.Keys, map[string]api.MetadataConfigurationKey{name: shown})
		groups[group] = all
	}
	return api.MetadataConfiguration{Configs: map[string]map[string]api.MetadataConfigurationGroup{"server": groups}}, nil
}

// release tells another member what this one's API can do by itself.
func (x server) release(*http.Request) (any, error) {
	return cluster.Release{Extensions: x.extensions}, nil
}

func (x server) get(r *http.Request) (any, error) {
	extensions := x.extensions
	if x.cfg.SharedExtensions != nil {
		extensions = x.cfg.SharedExtensions(extensions, freshExtensions)
	}
	short := api.ServerUntrusted{
		APIExtensions: extensions, APIStatus: "stable", APIVersion: api.Version,
		Auth: "untrusted", AuthMethods: []string{"tls"},
	}
	caller := CallerOf(r.Context())
	if caller.Trust == Untrusted {
		return short, nil
	}
	short.Auth = "trusted"
	shown := api.Server{ServerUntrusted: short, ServerPut: api.ServerPut{Config: map[string]any{}}}
	if caller.Trust == MetricsOnly {
		return short, nil
	}
	if caller.Trust == Full {
		shown.Config = shownConfig(x.config())
	}
	shown.Environment = x.cfg.Host.environment(x.cfg.View(), projectName(r))
	return tagged(x.tag(), shown), nil
}

// tag is the ETag of the configuration: the revisions of its two halves.
func (x server) tag() string {
	view := x.cfg.View()
	return etag(max(view.SettingsRevision(""), view.SettingsRevision(x.cfg.Host.Name())))
}

// config is the stored configuration, the cluster's and this member's together.
func (x server) config() state.Config {
	view, config := x.cfg.View(), state.Config{}
	for _, member := range []string{"", x.cfg.Host.Name()} {
		for _, setting := range view.Settings(member) {
			if state.HiddenSetting(setting.Key) {
				continue
			}
			config[setting.Key] = setting.Value
		}
	}
	return config
}

// shownConfig hides what must not be read back.
func shownConfig(config state.Config) map[string]any {
	shown := make(map[string]any, len(config))
	for key, value := range config {
		if key == trustPassword {
			shown[key] = true
		} else {
			shown[key] = value
		}
	}
	return shown
}

func (x server) put(r *http.Request) (any, error) {
	req, err := decode[api.ServerPut](r)
	if err != nil {
		return nil, err
	}
	before := x.config()
	err = x.update(r, func(state.Config) (state.Config, error) { return settings(req.Config, x.config()) })
	return x.warned(before), err
}

func (x server) patch(r *http.Request) (any, error) {
	req, err := decode[api.ServerPut](r)
	if err != nil {
		return nil, err
	}
	before := x.config()
	err = x.update(r, func(current state.Config) (state.Config, error) {
		change, err := settings(req.Config, current)
		if err != nil {
			return nil, err
		}
		for key := range req.Config {
			delete(current, key)
		}
		maps.Copy(current, change)
		return current, nil
	})
	return x.warned(before), err
}

// warned answers a change of the configuration, and says which of the keys that differ
// from before are stored without effect.
func (x server) warned(before state.Config) answer {
	changed := x.config()
	maps.DeleteFunc(changed, func(key, value string) bool { return value == "" || before[key] == value })
	a := warned{answer: synced(nil)}
	for _, key := range state.InertServerKeys(changed) {
		x.cfg.Log.Warn("a server key is stored and has no effect yet", "key", key)
		a.warnings = append(a.warnings, fmt.Sprintf("server key %q is stored and has no effect yet", key))
	}
	return a
}

// update stores what change makes of the present configuration, again when it
// was changed in between and the caller did not insist on what it had read.
func (x server) update(r *http.Request, change func(current state.Config) (state.Config, error)) error {
	for {
		view := x.cfg.View()
		if err := matches(r, x.tag()); err != nil {
			return err
		}
		expectCluster, expectMember := view.SettingsRevision(""), view.SettingsRevision(x.cfg.Host.Name())
		config, err := change(x.config())
		if err != nil {
			return err
		}
		err = x.cfg.Settings.UpdateSettings(r.Context(), config, expectCluster, expectMember)
		if insists := ifMatch(r) != "" && ifMatch(r) != "*"; errors.Is(err, state.ErrStale) && !insists && r.Context().Err() == nil {
			continue
		}
		return err
	}
}

// settings turns the values that a client sent into what is stored: text, and of
// the trust password its hash. A trust password of true, which is how it reads,
// leaves it as it is.
func settings(sent map[string]any, current state.Config) (state.Config, error) {
	config := state.Config{}
	for _, key := range slices.Sorted(maps.Keys(sent)) {
		text, err := settingText(key, sent[key])
		switch {
		case err != nil:
			return nil, err
		case key == trustPassword && sent[key] == true:
			text = current[key]
		case key == trustPassword && text != "":
			if text, err = password.Hash(text); err != nil {
				return nil, err
			}
		}
		if text != "" {
			config[key] = text
		}
	}
	return config, nil
}

// settingText reads one value: clients send numbers and booleans as such or as
// text.
func settingText(key string, value any) (string, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case string:
		return value, nil
	case bool:
		return strconv.FormatBool(value), nil
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64), nil
	}
	return "", state.Errorf(state.ErrInvalid, "field \"config\": %q wants text, a number, or true or false", key)
}
