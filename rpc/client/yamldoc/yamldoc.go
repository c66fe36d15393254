// Package yamldoc turns the API's JSON types into YAML that people edit, and
// back, by their JSON names.
//
// It knows nothing of what the documents mean, and is no general YAML library:
// reading is goccy/go-yaml's parser, writing is only what JSON can say.
package yamldoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Unmarshal reads one YAML document into v, a pointer. Keys that v does not have
// are errors. Where v wants a string, any scalar is taken as it is written, so
// that limits.cpu: 2 means "2". An empty document changes nothing.
func Unmarshal(text []byte, v any) error {
	target := reflect.TypeOf(v)
	if target == nil || target.Kind() != reflect.Pointer {
		return errors.New("yamldoc: want a pointer")
	}
	// The parser's own check for duplicates mistakes keys with quotes and dots
	// in them for each other; mapping checks instead.
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return err
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		return nil
	}
	if len(bodies) > 1 {
		return errors.New("one YAML document is expected, not several")
	}
	r := reader{anchors: map[string]ast.Node{}}
	value, err := r.value(bodies[0], target.Elem())
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// reader turns nodes into what encoding/json can write.
type reader struct {
	anchors map[string]ast.Node
	// steps bounds the work, since aliases of aliases can grow without end.
	steps int
}

const maxSteps = 1 << 20

func (r *reader) value(node ast.Node, target reflect.Type) (any, error) {
	if r.steps++; r.steps > maxSteps {
		return nil, errors.New("the document is too large")
	}
	for target != nil && target.Kind() == reflect.Pointer {
		target = target.Elem()
	}
	switch node := node.(type) {
	case *ast.NullNode:
		return nil, nil
	case *ast.AnchorNode:
		r.anchors[node.Name.GetToken().Value] = node.Value
		return r.value(node.Value, target)
	case *ast.AliasNode:
		name := node.Value.GetToken().Value
		anchored, ok := r.anchors[name]
		if !ok {
			return nil, fmt.Errorf("alias *%s stands for nothing", name)
		}
		return r.value(anchored, target)
	case *ast.TagNode:
		return r.value(node.Value, target)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{node}, target)
	case *ast.MappingNode:
		return r.mapping(node.Values, target)
	case *ast.SequenceNode:
		var element reflect.Type
		if target != nil && (target.Kind() == reflect.Slice || target.Kind() == reflect.Array) {
			element = target.Elem()
		}
		all := make([]any, 0, len(node.Values))
		for _, each := range node.Values {
			value, err := r.value(each, element)
			if err != nil {
				return nil, err
			}
			all = append(all, value)
		}
		return all, nil
	}
	return scalar(node, target)
}

func (r *reader) mapping(pairs []*ast.MappingValueNode, target reflect.Type) (any, error) {
	all := make(map[string]any, len(pairs))
	said := make(map[string]bool, len(pairs))
	for _, pair := range pairs {
		if pair.Key.IsMergeKey() {
			merged, err := r.value(pair.Value, target)
			if err != nil {
				return nil, err
			}
			fields, ok := merged.(map[string]any)
			if !ok {
				return nil, errors.New("<< wants a mapping")
			}
			for key, value := range fields {
				if _, own := all[key]; !own {
					all[key] = value
				}
			}
			continue
		}
		var key string
		if text, ok := pair.Key.(*ast.StringNode); ok {
			key = text.Value
		} else {
			key = pair.Key.GetToken().Value
		}
		if said[key] {
			return nil, fmt.Errorf("line %d: key %q is there twice", pair.Key.GetToken().Position.Line, key)
		}
		said[key] = true
		value, err := r.value(pair.Value, fieldType(target, key))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		all[key] = value
	}
	return all, nil
}

// scalar keeps a scalar's own text when a string is wanted.
func scalar(node ast.Node, target reflect.Type) (any, error) {
	wantsText := target != nil && target.Kind() == reflect.String
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, nil
	case *ast.LiteralNode:
		return node.Value.Value, nil
	case *ast.BoolNode:
		if wantsText {
			return node.GetToken().Value, nil
		}
		return node.Value, nil
	case *ast.IntegerNode:
		if wantsText {
			return node.GetToken().Value, nil
		}
		return json.Number(fmt.Sprint(node.Value)), nil
	case *ast.FloatNode:
		if wantsText {
			return node.GetToken().Value, nil
		}
		if math.IsInf(node.Value, 0) || math.IsNaN(node.Value) {
			return nil, fmt.Errorf("%s is not a number that can be used here", node.GetToken().Value)
		}
		return json.Number(strconv.FormatFloat(node.Value, 'g', -1, 64)), nil
	case *ast.InfinityNode, *ast.NanNode:
		if wantsText {
			return node.GetToken().Value, nil
		}
	}
	return nil, fmt.Errorf("line %d: %q can't be used here", node.GetToken().Position.Line, node.GetToken().Value)
}

// fieldType says what a mapping of the target type holds under key; nil when
// nobody knows.
func fieldType(target reflect.Type, key string) reflect.Type {
	if target == nil {
		return nil
	}
	switch target.Kind() {
	case reflect.Map:
		return target.Elem()
	case reflect.Struct:
		for field := range target.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Anonymous && name == "" {
				if found := fieldType(field.Type, key); found != nil {
					return found
				}
			} else if name == key {
				return field.Type
			}
		}
	}
	return nil
}

// Marshal writes v as YAML, in the order of its JSON.
func Marshal(v any) ([]byte, error) {
	encoded, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	w := writer{from: decoder}
	if err := w.top(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return w.out.Bytes(), nil
}
