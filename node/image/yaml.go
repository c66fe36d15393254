package image

import (
	"bytes"
	"math"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"muster/state"
)

// ParseMetadata reads and checks a metadata.yaml; what is wrong with it is
// state.ErrInvalid. Architecture names of other systems (amd64, arm64, armhf …)
// become the kernel's. Keys it does not know are passed over, since newer
// writers have some.
//
// It walks the syntax tree and does not decode into structs: a decoder turns
// the property "release: 22.10" into 22.1, and follows aliases, which a small
// file can multiply without end.
func ParseMetadata(data []byte) (Metadata, error) {
	m, err := parseMetadata(data)
	if err != nil {
		return Metadata{}, err
	}
	return m, m.Validate()
}

// The parser takes time that grows with the square of how deep lists and maps lie
// in each other: maxFlow bounds those in brackets, deepList is what no list of
// lists may look like.
const maxFlow = 1000

var deepList = []byte(strings.Repeat("- ", 50))

func parseMetadata(data []byte) (m Metadata, err error) {
	if len(data) > MaxMetadata {
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml has %d bytes; at most %d are allowed", len(data), MaxMetadata)
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml is not text")
	}
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxFlow {
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml holds more than %d lists and maps in brackets", maxFlow)
	}
	if bytes.Contains(data, deepList) {
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml holds lists too deep in each other")
	}
	// The parser is not ours and its input is anybody's.
	defer func() {
		if r := recover(); r != nil {
			m, err = Metadata{}, state.Errorf(state.ErrInvalid, "metadata.yaml is not valid YAML")
		}
	}()
	file, parseErr := parser.ParseBytes(data, 0)
	if parseErr != nil {
		first, _, _ := strings.Cut(parseErr.Error(), "\n")
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml is not valid YAML: %s", first)
	}
	if len(file.Docs) == 1 && file.Docs[0].Body == nil {
		return m, nil
	}
	if len(file.Docs) != 1 {
		return m, state.Errorf(state.ErrInvalid, "metadata.yaml holds %d documents; want one", len(file.Docs))
	}
	d := &yamlReader{}
	d.fields("metadata.yaml", file.Docs[0].Body, func(key string, value ast.Node) {
		switch key {
		case "architecture":
			m.Architecture = KernelArchitecture(d.text(key, value))
		case "creation_date":
			m.CreationDate = d.number(key, value)
		case "expiry_date":
			m.ExpiryDate = max(0, d.number(key, value)) // some tools write -1 for never
		case "properties":
			m.Properties = d.texts(key, value)
		case "templates":
			m.Templates = map[string]Template{}
			d.fields(key, value, func(target string, value ast.Node) {
				t := d.template("template "+shown(target), value)
				// Some tools write paths without the slash, or with more than one.
				if clean := path.Clean(strings.TrimLeft(target, "/")); target != "" && clean != ".." && !strings.HasPrefix(clean, "../") {
					target = "/" + clean
				}
				if _, twice := m.Templates[target]; twice {
					d.wrong(key, value, "the path "+shown(target)+" once")
				}
				m.Templates[target] = t
			})
		}
	})
	return m, d.err
}

// yamlReader reads a syntax tree and keeps the first thing wrong with it.
type yamlReader struct{ err error }

func (d *yamlReader) wrong(what string, node ast.Node, want string) {
	if d.err != nil {
		return
	}
	line := 0
	if tok := node.GetToken(); tok != nil && tok.Position != nil {
		line = tok.Position.Line
	}
	d.err = state.Errorf(state.ErrInvalid, "metadata.yaml line %d: %s: want %s", line, what, want)
}

func (d *yamlReader) template(what string, node ast.Node) (t Template) {
	d.fields(what, node, func(key string, value ast.Node) {
		switch key {
		case "template":
			t.Template = d.text(what+": template", value)
		case "create_only":
			t.CreateOnly = d.truth(what+": create_only", value)
		case "properties":
			t.Properties = d.texts(what+": properties", value)
		case "when":
			if _, none := value.(*ast.NullNode); none {
				return
			}
			list, ok := value.(*ast.SequenceNode)
			if !ok {
				d.wrong(what+": when", value, "a list of create, copy, rename and start")
				return
			}
			for _, when := range list.Values {
				t.When = append(t.When, Trigger(d.text(what+": when", when)))
			}
		}
	})
	return t
}

// fields calls visit for each key of a map. Nothing, as YAML's null, is a map
// without keys.
func (d *yamlReader) fields(what string, node ast.Node, visit func(key string, value ast.Node)) {
	var values []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode:
	default:
		d.wrong(what, node, "a map of keys and values")
	}
	seen := map[string]bool{}
	for _, value := range values {
		key := d.text(what, value.Key)
		if seen[key] {
			d.wrong(what, value, "the key "+shown(key)+" once")
		}
		seen[key] = true
		if d.err != nil {
			return
		}
		visit(key, value.Value)
	}
}

func (d *yamlReader) texts(what string, node ast.Node) map[string]string {
	texts := map[string]string{}
	d.fields(what, node, func(key string, value ast.Node) {
		texts[key] = d.text(what+": "+shown(key), value)
	})
	return texts
}

// text returns a scalar as it is written, whatever type YAML would give it: the
// release 22.10 is a text. Nothing is the empty text.
func (d *yamlReader) text(what string, node ast.Node) string {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	case *ast.NullNode:
		return ""
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value
	case *ast.MergeKeyNode:
		return "<<"
	}
	d.wrong(what, node, "a plain value (no list, map, alias or tag)")
	return ""
}

// number returns whole seconds; some writers quote them or write a fraction.
func (d *yamlReader) number(what string, node ast.Node) int64 {
	text := strings.TrimSpace(d.text(what, node))
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1<<52 {
		d.wrong(what, node, "seconds since 1970")
		return 0
	}
	return int64(f)
}

func (d *yamlReader) truth(what string, node ast.Node) bool {
	switch strings.ToLower(d.text(what, node)) {
	case "true", "yes", "on", "1":
		return true
	case "false", "no", "off", "0", "":
		return false
	}
	d.wrong(what, node, "true or false")
	return false
}
