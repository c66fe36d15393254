package cluster

import "sync"

// arrivals keep the files of an image from being removed between the moment they are here
// and that at which the cluster knows of them: until then they look like those of an image
// that was deleted. The zero value is ready to use.
type arrivals struct {
	mu sync.Mutex
	// coming counts what is on its way, by fingerprint; one that nobody can tell yet is "".
	coming map[string]int // guarded by mu
	// doomed are those that somebody wanted to remove meanwhile.
	doomed map[string]bool // guarded by mu
}

// begin says that an image is on its way. When ended is called the cluster knows of it, or
// never will; what was to be removed meanwhile is handed to remove then.
func (a *arrivals) begin(fingerprint string, remove func(fingerprint string)) (ended func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.coming == nil {
		a.coming, a.doomed = map[string]int{}, map[string]bool{}
	}
	a.coming[fingerprint]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.coming[fingerprint]--; a.coming[fingerprint] == 0 {
			delete(a.coming, fingerprint)
		}
		for doomed := range a.doomed {
			if !a.awaits(doomed) {
				delete(a.doomed, doomed)
				remove(doomed)
			}
		}
	}
}

// unless calls remove, during which no image begins to arrive; or leaves that to the end of
// what is on its way and may be this image.
func (a *arrivals) unless(fingerprint string, remove func(fingerprint string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.awaits(fingerprint) {
		a.doomed[fingerprint] = true
		return
	}
	remove(fingerprint)
}

// awaits needs mu.
func (a *arrivals) awaits(fingerprint string) bool {
	return a.coming[""] > 0 || a.coming[fingerprint] > 0
}
