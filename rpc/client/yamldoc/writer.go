package yamldoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// writer copies JSON tokens to YAML, so that the order of keys is kept.
type writer struct {
	from *json.Decoder
	out  bytes.Buffer
}

func (w *writer) top() error {
	token, err := w.from.Token()
	if err != nil {
		return err
	}
	if err := w.value(token, 0, atLineStart); err != nil {
		return err
	}
	return nil
}

// place says where in a line a value begins.
type place int

const (
	// atLineStart: nothing is on the line yet.
	atLineStart place = iota
	// afterKey: "key:" is.
	afterKey
	// afterDash: "-" is; a mapping goes on in the same line.
	afterDash
)

// value writes one value whose lines are indented by depth spaces, and ends the
// line.
func (w *writer) value(token json.Token, depth int, at place) error {
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return w.mapping(depth, at)
		}
		return w.sequence(depth, at)
	case string:
		w.space(at)
		w.text(token, depth)
	case nil:
		w.space(at)
		w.out.WriteString("null\n")
	default:
		// Numbers and booleans look the same in both.
		w.space(at)
		fmt.Fprintf(&w.out, "%v\n", token)
	}
	return nil
}

func (w *writer) space(at place) {
	if at != atLineStart {
		w.out.WriteByte(' ')
	}
}

// begin moves to where the first entry of a mapping or a list stands.
func (w *writer) begin(at place) {
	switch at {
	case afterKey:
		w.out.WriteByte('\n')
	case afterDash:
		w.out.WriteByte(' ')
	}
}

func (w *writer) mapping(depth int, at place) error {
	if !w.from.More() {
		w.space(at)
		w.out.WriteString("{}\n")
		_, err := w.from.Token()
		return err
	}
	w.begin(at)
	for first := true; w.from.More(); first = false {
		key, err := w.from.Token()
		if err != nil {
			return err
		}
		if !first || at != afterDash {
			w.indent(depth)
		}
		w.out.WriteString(quoted(key.(string)))
		w.out.WriteByte(':')
		next, err := w.from.Token()
		if err != nil {
			return err
		}
		inner := depth + 2
		if next == json.Delim('[') {
			// Lists stand level with their key, as LXD's tools write them.
			inner = depth
		}
		if err := w.value(next, inner, afterKey); err != nil {
			return err
		}
	}
	_, err := w.from.Token()
	return err
}

func (w *writer) sequence(depth int, at place) error {
	if !w.from.More() {
		w.space(at)
		w.out.WriteString("[]\n")
		_, err := w.from.Token()
		return err
	}
	w.begin(at)
	for first := true; w.from.More(); first = false {
		if !first || at != afterDash {
			w.indent(depth)
		}
		w.out.WriteByte('-')
		next, err := w.from.Token()
		if err != nil {
			return err
		}
		if err := w.value(next, depth+2, afterDash); err != nil {
			return err
		}
	}
	_, err := w.from.Token()
	return err
}

func (w *writer) indent(depth int) {
	w.out.WriteString(strings.Repeat(" ", depth))
}

// text writes a string: several lines as a block that people can edit, if it
// can be read back exactly, and anything else on one line.
func (w *writer) text(s string, depth int) {
	if !blockable(s) {
		w.out.WriteString(quoted(s) + "\n")
		return
	}
	body, ended := strings.CutSuffix(s, "\n")
	w.out.WriteByte('|')
	if !ended {
		w.out.WriteByte('-')
	}
	w.out.WriteByte('\n')
	for line := range strings.SplitSeq(body, "\n") {
		if line != "" {
			w.indent(max(depth, 2))
			w.out.WriteString(line)
		}
		w.out.WriteByte('\n')
	}
}

func blockable(s string) bool {
	body := strings.TrimSuffix(s, "\n")
	if !strings.Contains(body, "\n") || strings.HasPrefix(body, "\n") || strings.HasSuffix(body, "\n") {
		return false
	}
	for line := range strings.SplitSeq(body, "\n") {
		// Space at the ends of lines, or before the first, is where readers
		// of YAML disagree.
		if strings.TrimRight(line, " \t") != line || strings.HasPrefix(line, "\t") {
			return false
		}
	}
	if strings.HasPrefix(body, " ") {
		return false
	}
	for _, r := range body {
		if r != '\n' && r != '\t' && (!unicode.IsPrint(r) || r == unicode.ReplacementChar) {
			return false
		}
	}
	return true
}

// plain matches what every reader of YAML takes for a string without quotes:
// it starts with a letter or one of /._ followed by a letter, and holds no
// sign that could mean something.
var plain = regexp.MustCompile(`^(?:[A-Za-z]|[/_][A-Za-z0-9])[A-Za-z0-9 _./@%+-]*(?::[A-Za-z0-9_./@%+-]+)*$`)

// figures start with a digit and are no number, date or time to any reader:
// addresses, networks, and sizes such as 1GiB.
var figures = regexp.MustCompile(`^(?:[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?|[0-9]+(?:\.[0-9]+)?[kKMGTPE]i?B|/)$`)

// words are plain by their signs, and still not strings to some reader.
var words = map[string]bool{
	"y": true, "n": true, "yes": true, "no": true, "on": true, "off": true,
	"true": true, "false": true, "null": true,
}

func quoted(s string) string {
	if plain.MatchString(s) && !words[strings.ToLower(s)] && !strings.HasSuffix(s, " ") {
		return s
	}
	if figures.MatchString(s) {
		return s
	}
	// Inside double quotes YAML takes JSON's escapes.
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	// A string always encodes.
	_ = encoder.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}
