package filter

import (
	"strings"
	"unicode"

	"muster/state"
)

// maxDepth bounds parentheses and nots: a filter is what a person writes.
const maxDepth = 100

// Parse reads a filter. A mistake is state.ErrInvalid and names its place, in
// characters from 1. The empty string gives the nil Filter.
//
// As the documents say, and and or bind alike, from left to right; not binds to
// what follows it.
func Parse(source string) (*Filter, error) {
	if strings.TrimSpace(source) == "" {
		return nil, nil
	}
	words, err := split(source)
	if err != nil {
		return nil, err
	}
	p := &parser{words: words, end: len([]rune(source)) + 1}
	root, err := p.expression()
	if err != nil {
		return nil, err
	}
	if word, more := p.peek(); more {
		return nil, wrong(word.at, "%q: want and, or, or the end", word.text)
	}
	return &Filter{source: source, root: root}, nil
}

// word is one piece of a filter.
type word struct {
	text string
	// quoted words are never operators.
	quoted bool
	at     int
}

func wrong(at int, format string, args ...any) error {
	args = append([]any{at}, args...)
	return state.Errorf(state.ErrInvalid, "filter, character %d: "+format, args...)
}

// split cuts a filter into words, parentheses and quoted texts.
func split(source string) ([]word, error) {
	var words []word
	runes := []rune(source)
	for i := 0; i < len(runes); {
		switch r := runes[i]; {
		case unicode.IsSpace(r):
			i++
		case r == '(' || r == ')':
			words = append(words, word{text: string(r), at: i + 1})
			i++
		case r == '"' || r == '\'':
			text, next, ok := quotedText(runes, i)
			if !ok {
				return nil, wrong(i+1, "the quotation is not closed")
			}
			words = append(words, word{text: text, quoted: true, at: i + 1})
			i = next
		default:
			start := i
			for i < len(runes) && !unicode.IsSpace(runes[i]) && runes[i] != '(' && runes[i] != ')' {
				i++
			}
			words = append(words, word{text: string(runes[start:i]), at: start + 1})
		}
	}
	return words, nil
}

// quotedText reads from the quote at start to its partner; a backslash takes the
// next character as it is.
func quotedText(runes []rune, start int) (text string, next int, ok bool) {
	var out strings.Builder
	for i := start + 1; i < len(runes); i++ {
		switch {
		case runes[i] == '\\' && i+1 < len(runes):
			i++
			out.WriteRune(runes[i])
		case runes[i] == runes[start]:
			return out.String(), i + 1, true
		default:
			out.WriteRune(runes[i])
		}
	}
	return "", 0, false
}

type parser struct {
	words []word
	next  int
	depth int
	end   int
}

func (p *parser) peek() (word, bool) {
	if p.next < len(p.words) {
		return p.words[p.next], true
	}
	return word{at: p.end}, false
}

// operator takes the next word if it is that operator, in any case.
func (p *parser) operator(name string) bool {
	next, ok := p.peek()
	if ok && !next.quoted && strings.EqualFold(next.text, name) {
		p.next++
		return true
	}
	return false
}

func (p *parser) expression() (node, error) {
	left, err := p.term()
	if err != nil {
		return nil, err
	}
	for {
		switch {
		case p.operator("and"):
			right, err := p.term()
			if err != nil {
				return nil, err
			}
			left = both{left, right}
		case p.operator("or"):
			right, err := p.term()
			if err != nil {
				return nil, err
			}
			left = either{left, right}
		default:
			return left, nil
		}
	}
}

func (p *parser) term() (node, error) {
	p.depth++
	defer func() { p.depth-- }()
	start, more := p.peek()
	switch {
	case !more:
		return nil, wrong(start.at, "something is missing: want FIELD eq VALUE")
	case p.depth > maxDepth:
		return nil, wrong(start.at, "more than %d parentheses and nots inside each other", maxDepth)
	case p.operator("not"):
		inner, err := p.term()
		return not{inner}, err
	case p.operator("("):
		inner, err := p.expression()
		if err != nil {
			return nil, err
		}
		if !p.operator(")") {
			at, _ := p.peek()
			return nil, wrong(at.at, "the parenthesis of character %d is not closed", start.at)
		}
		return inner, nil
	}
	return p.comparison()
}

func (p *parser) comparison() (node, error) {
	field := p.words[p.next]
	if !field.quoted && field.text == ")" {
		return nil, wrong(field.at, "%q: want a field", field.text)
	}
	p.next++
	made := compare{field: field.text, equal: true}
	switch {
	case p.operator("eq"):
	case p.operator("ne"):
		made.equal = false
	default:
		at, more := p.peek()
		if !more {
			return nil, wrong(at.at, "%q is followed by nothing: want eq or ne", field.text)
		}
		return nil, wrong(at.at, "%q: want eq or ne", at.text)
	}
	value, more := p.peek()
	if !more || !value.quoted && (value.text == ")" || value.text == "(") {
		return nil, wrong(value.at, "the value is missing")
	}
	p.next++
	made.value = newPattern(value.text)
	return made, nil
}
