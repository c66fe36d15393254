package rtnl

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/state"
)

func TestAListThatChangesIsAskedForAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []error // the last one is given for ever
		asked   int
		want    error
	}{
		"one that stays":         {[]error{nil}, 1, nil},
		"one that changed twice": {[]error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, 3, nil},
		"one that never stays":   {[]error{netlink.ErrDumpInterrupted}, tries, state.ErrUnavailable},
		"another failure":        {[]error{io.ErrUnexpectedEOF}, 1, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got, err := whole(func() ([]int, error) {
				asked++
				return []int{asked}, tc.answers[min(asked, len(tc.answers))-1]
			})
			if !errors.Is(err, tc.want) || asked != tc.asked {
				t.Errorf("asked %d times for %v; want %d times for %v", asked, err, tc.asked, tc.want)
			}
			if tc.want == nil && !slices.Equal(got, []int{asked}) {
				t.Errorf("got %v; want what was answered last", got)
			}
		})
	}
}
