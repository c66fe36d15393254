package image

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flosch/pongo2/v6"

	"muster/state"
)

// The template engine runs in the daemon and as root, and templates come with
// images, which are anybody's. It can be kept from files, but it bounds neither
// time nor memory. So a template may use only what cannot grow on its own: no
// tag that binds a new value (a value doubled forty times has a terabyte), no
// filter that makes much of little, loops that are counted.

const (
	// maxTemplate is how many bytes a template may have, and maxTag one of its
	// tags: it bounds how often a tag can repeat or add up a long value.
	maxTemplate = 64 << 10
	maxTag      = 1000
	// maxRendered is how many bytes a template may render to.
	maxRendered = 4 << 20
	// maxRounds is how many rounds all loops of a template may take, and
	// maxRendering how long; a round looks at the clock.
	maxRounds    = 100_000
	maxRendering = 5 * time.Second
	// roundCounter is the function that fence calls in each round of a loop.
	roundCounter = "muster_round"
)

// allowedTags are the tags that a template may use, with the words that belong
// to them.
var allowedTags = []string{
	"if", "elif", "else", "endif", "for", "empty", "endfor",
	"ifequal", "endifequal", "ifnotequal", "endifnotequal", "firstof", "comment", "endcomment",
	"templatetag", "now",
}

// bannedTags and bannedFilters are all others of pongo2 v6.0.0; a test compares
// them with its source.
var bannedTags = []string{
	"autoescape", "block", "cycle", "extends", "filter", "ifchanged", "import", "include", "lorem", "macro",
	"set", "spaceless", "ssi", "widthratio", "with",
}

var bannedFilters = []string{
	"addslashes", "center", "e", "escape", "escapejs", "floatformat", "join", "linebreaks", "linebreaksbr", "linenumbers", "ljust", "make_list",
	"random", "removetags", "rjust", "stringformat", "truncatechars_html", "truncatewords_html",
	"urlencode", "iriencode", "urlize", "urlizetrunc", "wordwrap",
}

// newSet returns a set for one template that loads no file.
func newSet() (*pongo2.TemplateSet, error) {
	set := pongo2.NewSet("image", noFiles{})
	for _, tag := range bannedTags {
		if tag == "autoescape" {
			continue // fence uses it; it refuses that of the template
		}
		if err := set.BanTag(tag); err != nil {
			return nil, err
		}
	}
	for _, filter := range bannedFilters {
		if err := set.BanFilter(filter); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// noFiles refuses to load templates.
type noFiles struct{}

// Abs implements pongo2.TemplateLoader.
func (noFiles) Abs(_, name string) string { return name }

// Get implements pongo2.TemplateLoader.
func (noFiles) Get(name string) (io.Reader, error) {
	return nil, state.Errorf(state.ErrInvalid, "a template cannot load %s", shown(name))
}

var (
	opening = regexp.MustCompile(`\{[{%#]`)
	// A tag holds only what the engine's lexer knows, and its quoted texts hold no
	// brace and no percent sign: so a tag ends here where it ends for the engine.
	tagText  = regexp.MustCompile(`^(?:\{%` + tagCode + `%\}|\{\{` + tagCode + `\}\}|\{#[^\n]*?#\})`)
	tagStart = regexp.MustCompile(`^\{%-?[ \t\r]*([a-zA-Z_][a-zA-Z0-9_]*)`)
)

const tagCode = `(?:[a-zA-Z0-9_ \t\r()+\-*<>/^,.!|:=\[\]]|&&|"(?:[^"\\{}%\n]|\\["\\])*"|'(?:[^'\\{}%\n]|\\["\\])*')*`

// fence returns the template with a counter in each loop and without the escapes
// for HTML, or says what it may not use.
func fence(source string) (string, error) {
	if strings.ContainsRune(source, 1) {
		return "", fmt.Errorf("it holds a control character") // the engine takes it for the end
	}
	var out strings.Builder
	out.WriteString("{% autoescape off %}")
	for rest := source; rest != ""; {
		at := opening.FindStringIndex(rest)
		if at == nil {
			out.WriteString(rest)
			break
		}
		out.WriteString(rest[:at[0]])
		rest = rest[at[0]:]
		line := 1 + strings.Count(source[:len(source)-len(rest)], "\n")
		tag := tagText.FindString(rest)
		if tag == "" {
			return "", fmt.Errorf("line %d: what %s opens is not closed, or holds a character that the templates of images cannot use", line, rest[:2])
		}
		rest = rest[len(tag):]
		if tag[1] == '#' {
			continue
		}
		if len(tag) > maxTag {
			return "", fmt.Errorf("line %d: a tag of %d bytes; at most %d are allowed", line, len(tag), maxTag)
		}
		out.WriteString(tag)
		if tag[1] == '{' {
			continue
		}
		name := tagStart.FindStringSubmatch(tag)
		if name == nil || !slices.Contains(allowedTags, name[1]) {
			return "", fmt.Errorf("line %d: the tag %s cannot be used in the templates of images", line, shown(tag))
		}
		if name[1] == "for" {
			out.WriteString("{{ " + roundCounter + "() ")
			if strings.HasSuffix(tag, "-%}") {
				out.WriteString("-") // it trims what follows the loop's tag
			}
			out.WriteString("}}")
		}
	}
	out.WriteString("{% endautoescape %}")
	return out.String(), nil
}
