package filter

import (
	"encoding"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Values are looked at where they are, by the rules of encoding/json: to encode
// and decode each object of a list cost ten times what the filter itself does.

// lookUp follows a dotted path. Keys may hold dots themselves (config.image.os),
// so at each level the longest key that fits is tried first. The case of names is
// forgiven: the documents write Properties.os.
func lookUp(value reflect.Value, path string) (reflect.Value, bool) {
	value = plain(value)
	if found, ok := named(value, path); ok {
		return found, true
	}
	for cut := strings.LastIndexByte(path, '.'); cut > 0; cut = strings.LastIndexByte(path[:cut], '.') {
		if inner, ok := named(value, path[:cut]); ok {
			if found, ok := lookUp(inner, path[cut+1:]); ok {
				return found, true
			}
		}
	}
	return reflect.Value{}, false
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	bytesType     = reflect.TypeFor[[]byte]()
)

// plain follows pointers and interfaces to what they hold. A value that has a
// JSON of its own making becomes that, decoded. The zero Value stands for null.
func plain(value reflect.Value) reflect.Value {
	for value.IsValid() {
		kind := value.Kind()
		if (kind == reflect.Pointer || kind == reflect.Interface) && value.IsNil() {
			return reflect.Value{}
		}
		if kind == reflect.Interface {
			value = value.Elem()
			continue
		}
		if t := value.Type(); t.Implements(marshaler) || t.Implements(textMarshaler) || t == bytesType {
			return decoded(value)
		}
		if kind != reflect.Pointer {
			break
		}
		value = value.Elem()
	}
	return value
}

// decoded is what clients see of a value that encodes itself.
func decoded(value reflect.Value) reflect.Value {
	encoded, err := json.Marshal(value.Interface())
	if err != nil {
		return reflect.Value{}
	}
	var seen any
	if json.Unmarshal(encoded, &seen) != nil {
		return reflect.Value{}
	}
	return reflect.ValueOf(seen)
}

// named finds a member of a struct or a map by its name in JSON.
func named(object reflect.Value, name string) (reflect.Value, bool) {
	if !object.IsValid() {
		return reflect.Value{}, false
	}
	switch object.Kind() {
	case reflect.Struct:
		return field(object, name)
	case reflect.Map:
		return entry(object, name)
	}
	return reflect.Value{}, false
}

func entry(object reflect.Value, name string) (reflect.Value, bool) {
	if object.Type().Key().Kind() != reflect.String {
		return reflect.Value{}, false
	}
	if value := object.MapIndex(reflect.ValueOf(name).Convert(object.Type().Key())); value.IsValid() {
		return value, true
	}
	bare := strings.ReplaceAll(name, "_", "")
	for entries := object.MapRange(); entries.Next(); {
		if alike(entries.Key().String(), name, bare) {
			return entries.Value(), true
		}
	}
	return reflect.Value{}, false
}

// alike forgives case and underscores; bare is name without them.
func alike(key, name, bare string) bool {
	return strings.EqualFold(key, name) || strings.EqualFold(strings.ReplaceAll(key, "_", ""), bare)
}

func field(object reflect.Value, name string) (reflect.Value, bool) {
	fields := fieldsOf(object.Type())
	at := slices.IndexFunc(fields, func(f jsonField) bool { return f.name == name })
	if at < 0 {
		bare := strings.ReplaceAll(name, "_", "")
		at = slices.IndexFunc(fields, func(f jsonField) bool { return alike(f.name, name, bare) })
	}
	if at < 0 {
		return reflect.Value{}, false
	}
	// A field of an embedded pointer that is nil is not there.
	value, err := object.FieldByIndexErr(fields[at].index)
	if err != nil || (fields[at].omitEmpty && empty(value)) || (fields[at].omitZero && value.IsZero()) {
		return reflect.Value{}, false
	}
	return value, true
}

// empty is what omitempty leaves out (encoding/json).
func empty(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return value.Len() == 0
	case reflect.Struct:
		return false
	}
	return value.IsZero()
}

// jsonField is a field of a struct as its JSON shows it.
type jsonField struct {
	name                string
	index               []int
	omitEmpty, omitZero bool
}

// known remembers the fields of each type, a []jsonField.
var known sync.Map

func fieldsOf(t reflect.Type) []jsonField {
	if fields, ok := known.Load(t); ok {
		return fields.([]jsonField)
	}
	var fields []jsonField
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		// What an embedded struct without a name of its own holds is listed by itself.
		if !f.IsExported() || tag == "-" || (f.Anonymous && name == "") {
			continue
		}
		if name == "" {
			name = f.Name
		}
		words := strings.Split(options, ",")
		fields = append(fields, jsonField{
			name: name, index: f.Index,
			omitEmpty: slices.Contains(words, "omitempty"), omitZero: slices.Contains(words, "omitzero"),
		})
	}
	known.Store(t, fields)
	return fields
}

// pattern is a value as users write it: text, of which the case does not matter, or a
// regular expression for all of it, as LXD 5.0 takes it ("lxc list name=web.*"). What is
// no regular expression is only text.
type pattern struct {
	text string
	expr *regexp.Regexp // nil when it would say no more than the text
}

func newPattern(text string) pattern {
	p := pattern{text: text}
	if regexp.QuoteMeta(text) != text {
		p.expr, _ = regexp.Compile("(?is)^(?:" + text + ")$") // what can't be compiled is text
	}
	return p
}

func (p pattern) match(value string) bool {
	return strings.EqualFold(value, p.text) || p.expr != nil && p.expr.MatchString(value)
}

// same compares a value with how a user writes it. A list has the value when one
// of its elements does.
func same(value reflect.Value, wanted pattern) bool {
	value = plain(value)
	if !value.IsValid() {
		return false
	}
	switch value.Kind() {
	case reflect.String:
		return wanted.match(value.String())
	case reflect.Bool:
		return strings.EqualFold(strconv.FormatBool(value.Bool()), wanted.text)
	case reflect.Slice, reflect.Array:
		for i := range value.Len() {
			if same(value.Index(i), wanted) {
				return true
			}
		}
		return false
	}
	number, err := strconv.ParseFloat(wanted.text, 64)
	switch {
	case err != nil:
		return false
	case value.CanInt():
		return float64(value.Int()) == number
	case value.CanUint():
		return float64(value.Uint()) == number
	case value.CanFloat():
		return value.Float() == number
	}
	return false
}
