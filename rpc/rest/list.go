package rest

import (
	"encoding/json"
	"net/http"
	"strconv"

	"muster/rpc/rest/filter"
	"muster/state"
)

// rows says how a collection shows its objects.
type rows[T any] struct {
	// url is the object's own, which recursion 0 lists.
	url func(T) string
	// show returns the JSON type that recursion 1 lists and filters look at.
	show func(T) any
	// encode returns the JSON of show, when something remembers it (encodeOnce);
	// nil means to encode it each time.
	encode func(T) ([]byte, error)
}

// listing answers GET of a collection: URLs, or with recursion the objects, of
// those that the filter selects.
func listing[T any](r *http.Request, objects []T, show rows[T]) (any, error) {
	level, err := recursion(r)
	if err != nil {
		return nil, err
	}
	objects, err = selected(r, objects, show.show)
	if err != nil {
		return nil, err
	}
	if level == 0 {
		urls := make([]string, len(objects))
		for i, object := range objects {
			urls[i] = show.url(object)
		}
		return urls, nil
	}
	elements := make(array, len(objects))
	for i, object := range objects {
		if show.encode != nil {
			elements[i], err = show.encode(object)
		} else {
			elements[i], err = json.Marshal(show.show(object))
		}
		if err != nil {
			return nil, err
		}
	}
	return elements, nil
}

// selected returns the objects that the request's filter lets through.
func selected[T any](r *http.Request, objects []T, show func(T) any) ([]T, error) {
	wanted, err := filter.Parse(r.URL.Query().Get("filter"))
	if err != nil || wanted == nil {
		return objects, err
	}
	var kept []T
	for _, object := range objects {
		if wanted.Match(show(object)) {
			kept = append(kept, object)
		}
	}
	return kept, nil
}

// recursion returns the level of detail that a list is asked for.
func recursion(r *http.Request) (int, error) {
	text := r.URL.Query().Get("recursion")
	if text == "" {
		return 0, nil
	}
	level, err := strconv.Atoi(text)
	if err != nil || level < 0 || level > 2 {
		return 0, state.Errorf(state.ErrInvalid, "recursion is %q, want 0, 1 or 2", text)
	}
	return level, nil
}

// encodeOnce encodes an object of the View and remembers the result beside it.
// The key is the newest revision of everything else that the encoding depends
// on, or the object's own when there is nothing else.
func encodeOnce(meta state.Meta, key state.Revision, show func() any) ([]byte, error) {
	return meta.Memo.Get(key, func() ([]byte, error) { return json.Marshal(show()) })
}

// orEmpty returns an empty map for a nil one: clients iterate over what they get.
func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
