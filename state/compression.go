package state

import (
	"slices"
	"strconv"
	"strings"
)

// A compressor is an algorithm that images and backups can be packed with, and
// the options that may follow its name, as in "gzip --rsyncable".
type compressor struct {
	name    string
	levels  [2]int // the least and the greatest, as in -9; both zero for none
	options []string
	threads bool // whether it takes -T4 and --threads=4
}

// compressors have only the options that change how data are packed: the programs
// have others that read and write files.
var compressors = []compressor{
	{name: "gzip", levels: [2]int{1, 9}, options: []string{"--fast", "--best", "--rsyncable", "-n", "--no-name"}},
	{name: "xz", levels: [2]int{0, 9}, options: []string{"--fast", "--best", "-e", "--extreme"}, threads: true},
	{name: "zstd", levels: [2]int{1, 22}, options: []string{"--ultra", "--fast", "--long", "--rsyncable"}, threads: true},
	{name: "bzip2", levels: [2]int{1, 9}, options: []string{"--fast", "--best"}},
	{name: "lzma", levels: [2]int{0, 9}, options: []string{"--fast", "--best", "-e", "--extreme"}},
	{name: "none"},
}

// harmlessOptions change nothing of what is written to a pipe.
var harmlessOptions = []string{"-c", "--stdout", "-k", "--keep", "-q", "--quiet"}

// ParseCompression splits what images.compression_algorithm and its like hold,
// such as "xz -1", into the algorithm and its options. Anything that is not known
// is ErrInvalid. The empty text is gzip.
func ParseCompression(text string) (algorithm string, options []string, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return "gzip", nil, nil
	}
	at := slices.IndexFunc(compressors, func(c compressor) bool { return c.name == words[0] })
	if at < 0 {
		return "", nil, Errorf(ErrInvalid, "unknown compression algorithm %q: use gzip, xz, zstd, bzip2, lzma or none", words[0])
	}
	c := compressors[at]
	for _, option := range words[1:] {
		level, err := strconv.Atoi(strings.TrimPrefix(option, "-"))
		threads, isThreads := strings.CutPrefix(option, "-T")
		if !isThreads {
			threads, isThreads = strings.CutPrefix(option, "--threads=")
		}
		switch {
		case slices.Contains(harmlessOptions, option) && c.name != "none":
			continue
		case slices.Contains(c.options, option):
		case err == nil && option[0] == '-' && c.levels[1] > 0 && level >= c.levels[0] && level <= c.levels[1]:
		case isThreads && c.threads && isSmallNumber(threads):
		default:
			return "", nil, Errorf(ErrInvalid, "compression %q: %s has no option %q that is allowed here; %s", text, c.name, option, allowed(c.levels, c.options))
		}
		options = append(options, option)
	}
	return c.name, options, nil
}

// compression checks a value of a configuration key.
func compression(value string) error {
	_, _, err := ParseCompression(value)
	return err
}

func isSmallNumber(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= 0 && n <= 256 && text[0] != '+'
}

func allowed(levels [2]int, options []string) string {
	if levels[1] == 0 {
		return "it has none"
	}
	return "use -" + strconv.Itoa(levels[0]) + " to -" + strconv.Itoa(levels[1]) + " or " + strings.Join(options, ", ")
}
