package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"muster/state"
)

// Configuration may be long, many may be written at the same moment, and what is too long
// is refused with what would be right.
func TestLongConfiguration(t *testing.T) {
	s := open(t, t.TempDir())
	long := func(name string, size int) Command {
		return CreateProfile{Profile: state.Profile{Project: "default", Name: name, Config: state.Config{"user.user-data": strings.Repeat("x", size)}}}
	}
	var writing sync.WaitGroup
	for i := range 6 {
		writing.Go(func() {
			// A slow machine takes longer for all of them than a write waits.
			_, err := s.Apply(t.Context(), long(fmt.Sprintf("p%d", i), 4<<20))
			for errors.Is(err, state.ErrUnavailable) && t.Context().Err() == nil {
				_, err = s.Apply(t.Context(), long(fmt.Sprintf("p%d", i), 4<<20))
			}
			if err != nil && !errors.Is(err, state.ErrExists) {
				t.Errorf("4 MiB of configuration: %v", err)
			}
		})
	}
	writing.Wait()
	for i := range 6 {
		if _, err := s.View().Profile("default", fmt.Sprintf("p%d", i)); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Apply(t.Context(), long("longer", MaxCommand))
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "5242880 at once") {
		t.Errorf("more than fits: %v; want ErrInvalid with what fits", err)
	}
	must(t, s, long("after", 1))
}
