package dump_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/node/network/dump"
	"muster/state"
)

func TestWhole(t *testing.T) {
	const always = 1 << 30
	for name, tc := range map[string]struct {
		interrupted int // how many lists are, before one fails with err or gets through
		err         error
		want        []int
		wantErr     error
	}{
		"a list that nothing fell into is returned":   {0, nil, []int{1, 2}, nil},
		"an interrupted list is asked for again":      {9, nil, []int{1, 2}, nil},
		"another error is returned as it is":          {9, fs.ErrPermission, nil, fs.ErrPermission},
		"a list that is always interrupted is no bug": {always, nil, nil, state.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			got, err := dump.Whole(func() ([]int, error) {
				if calls++; calls <= tc.interrupted {
					return []int{1}, netlink.ErrDumpInterrupted
				}
				return []int{1, 2}, tc.err
			})
			if !slices.Equal(got, tc.want) || !errors.Is(err, tc.wantErr) {
				t.Errorf("Whole = %v, %v; want %v, %v", got, err, tc.want, tc.wantErr)
			}
		})
	}
}
