package image

import "strconv"

// shown quotes a name that somebody else chose for a message: on one line,
// printable, and not longer than anybody reads.
func shown(name string) string {
	const most = 120
	if len(name) > most {
		name = name[:most] + "…"
	}
	return strconv.Quote(name)
}
