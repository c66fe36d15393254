package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"muster/state"
)

// maxBody is the largest JSON body that is read, in bytes: long user-data and whole
// preseeds fit. What it makes is one command, of which the database takes somewhat more
// (store.MaxCommand).
const maxBody = 4 << 20

// decode reads the request's JSON body into a T. Fields that T lacks are
// ignored, because clients of newer servers send more than we know; everything
// else that does not fit is state.ErrInvalid with a sentence that names the
// field and what it should be.
func decode[T any](r *http.Request) (T, error) {
	var value T
	err := decodeInto(r, &value)
	return value, err
}

// decodeInto is decode into a value that already holds what the body may leave
// out: the object as it is, for PATCH.
func decodeInto(r *http.Request, value any) error {
	data, err := body(r)
	if err != nil {
		return err
	}
	return unmarshal(data, value)
}

// body reads the whole JSON body.
func body(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge) || len(data) > maxBody:
		return nil, state.Errorf(state.ErrInvalid, "the body is larger than %d MiB: put long data into a file or an image", maxBody>>20)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, state.Errorf(state.ErrInvalid, "the body ended after %d bytes, before its announced length", len(data))
	case err != nil:
		return nil, state.Errorf(state.ErrInvalid, "the body could not be read: %w", err)
	}
	return data, nil
}

// unmarshal is json.Unmarshal with errors for people.
func unmarshal(data []byte, value any) error {
	if len(strings.TrimSpace(string(data))) == 0 {
		return state.Errorf(state.ErrInvalid, "the body is empty, want a JSON object")
	}
	err := json.Unmarshal(data, value)
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return state.Errorf(state.ErrInvalid, "the body is %s, want %s", article(wrongType.Value), kindName(wrongType.Type))
	case errors.As(err, &wrongType):
		want := kindName(wrongType.Type)
		// The decoder names the innermost type that did not fit; users think of
		// the field they wrote, whose whole type says more.
		if whole := fieldType(reflect.TypeOf(value), wrongType.Field); whole != nil {
			want = kindName(whole)
		}
		return state.Errorf(state.ErrInvalid, "field %q: want %s, got %s", wrongType.Field, want, article(wrongType.Value))
	case errors.As(err, &syntax):
		return state.Errorf(state.ErrInvalid, "the body is not JSON: at byte %d: %s", syntax.Offset, syntax.Error())
	}
	if badTime, ok := errors.AsType[*time.ParseError](err); ok {
		return state.Errorf(state.ErrInvalid, "a time in the body is %s: want one such as 2026-11-21T06:00:00Z", badTime.Value)
	}
	return state.Errorf(state.ErrInvalid, "the body is not what this path takes: %w", err)
}

// fieldType follows a dotted path of JSON names into t, or returns nil.
func fieldType(t reflect.Type, path string) reflect.Type {
	for name := range strings.SplitSeq(path, ".") {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Map, reflect.Slice, reflect.Array:
			t = t.Elem()
			continue
		case reflect.Struct:
		default:
			return nil
		}
		found := false
		for _, field := range reflect.VisibleFields(t) {
			tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if tag == name || (tag == "" && strings.EqualFold(field.Name, name)) {
				t, found = field.Type, true
				break
			}
		}
		if !found {
			return nil
		}
	}
	return t
}

// kindName says in words what JSON a Go type takes.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return kindName(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list of " + plural(t.Elem())
	case reflect.Map:
		return "an object of " + plural(t.Elem())
	case reflect.Struct:
		return "an object"
	}
	return fmt.Sprintf("a value for %s", t)
}

func plural(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return plural(t.Elem())
	case reflect.String:
		return "strings"
	case reflect.Map:
		return "objects of " + plural(t.Elem())
	case reflect.Struct:
		return "objects"
	case reflect.Bool:
		return "booleans"
	case reflect.Interface:
		return "values"
	}
	return "numbers"
}

func article(jsonKind string) string {
	// encoding/json reports "number 1.5" for numbers that do not fit.
	kind, detail, _ := strings.Cut(jsonKind, " ")
	switch kind {
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "bool":
		return "true or false"
	}
	if detail != "" {
		return "the " + kind + " " + detail
	}
	return "a " + kind
}
