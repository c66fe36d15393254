package rest

import (
	"errors"
	"maps"
	"net/http"

	"muster/state"
)

// patched applies the body of a PATCH: prepare lays it over the object as the
// View has it and returns that object's revision with the call that stores the
// result. When somebody else changed the object in between and the caller did
// not insist on a revision, it is laid over the newer one.
func patched(r *http.Request, prepare func(change []byte) (state.Revision, func(expect state.Revision) error, error)) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	change, err := body(r)
	if err != nil {
		return nil, err
	}
	for {
		revision, apply, err := prepare(change)
		if err != nil {
			return nil, err
		}
		if expect != 0 && expect != revision {
			return nil, errStale
		}
		err = apply(revision)
		if expect != 0 || !errors.Is(err, state.ErrStale) || r.Context().Err() != nil {
			return nil, err
		}
	}
}

// withoutEmpty returns the configuration without keys that are empty, which is
// how clients unset one.
func withoutEmpty(config map[string]string) state.Config {
	kept := maps.Clone(orEmpty(config))
	maps.DeleteFunc(kept, func(_, value string) bool { return value == "" })
	return kept
}

// withoutNil returns the devices without those that are null, and without options that
// are empty, which is how clients remove them.
func withoutNil(devices map[string]map[string]string) state.Devices {
	kept := state.Devices{}
	for name, device := range devices {
		if device != nil {
			kept[name] = withoutEmpty(device)
		}
	}
	return kept
}
