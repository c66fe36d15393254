package password

import (
	"sync"
	"time"
)

const (
	// free is how many wrong guesses cost nothing but their own time: people
	// mistype.
	free = 3
	// longest is the most that one wrong guess can cost.
	longest = 5 * time.Minute
	// remembered is how many guessers are known at a time.
	remembered = 4096
)

// Damper makes guessing slow: after a few wrong guesses each further one from
// the same source doubles the time until the next is heard. The zero value is
// ready. Sources are forgotten an hour after their last wrong guess.
type Damper struct {
	mu      sync.Mutex
	sources map[string]guesses // guarded by mu
}

type guesses struct {
	wrong int
	last  time.Time
	until time.Time
}

// Wait returns how long the source has to wait before it may try again; zero
// means that it may now.
func (d *Damper) Wait(source string, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, d.sources[source].until.Sub(now))
}

// Wrong notes a wrong guess.
func (d *Damper) Wrong(source string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources == nil {
		d.sources = map[string]guesses{}
	}
	for other, g := range d.sources {
		if now.Sub(g.last) > time.Hour {
			delete(d.sources, other)
		}
	}
	if _, known := d.sources[source]; !known && len(d.sources) >= remembered {
		d.forgetOldest()
	}
	g := d.sources[source]
	g.wrong++
	g.last = now
	if over := g.wrong - free; over >= 0 {
		g.until = now.Add(min(longest, time.Second<<min(over, 20)))
	}
	d.sources[source] = g
}

// Right forgets the source's wrong guesses.
func (d *Damper) Right(source string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sources, source)
}

// forgetOldest makes room; the caller holds mu.
func (d *Damper) forgetOldest() {
	oldest, when := "", time.Time{}
	for source, g := range d.sources {
		if when.IsZero() || g.last.Before(when) {
			oldest, when = source, g.last
		}
	}
	delete(d.sources, oldest)
}
