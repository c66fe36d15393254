package storage

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/node/storage/mount"
)

func TestTranslate(t *testing.T) {
	for name, tc := range map[string]struct {
		disk, shown *IDMap
		want        []mount.Mapping
	}{
		"files of an image for a container":          {nil, Shift(1000, 100), []mount.Mapping{{Disk: 0, Shown: 1000, Size: 100}}},
		"files of a container for its image":         {Shift(1000, 100), nil, []mount.Mapping{{Disk: 1000, Shown: 0, Size: 100}}},
		"files of one container for another":         {Shift(1000, 100), Shift(5000, 100), []mount.Mapping{{Disk: 1000, Shown: 5000, Size: 100}}},
		"a smaller container sees fewer":             {Shift(1000, 100), Shift(5000, 10), []mount.Mapping{{Disk: 1000, Shown: 5000, Size: 10}}},
		"a hole in a map splits it":                  {nil, holed(), []mount.Mapping{{Disk: 0, Shown: 1000, Size: 33}, {Disk: 33, Shown: 33, Size: 1}, {Disk: 34, Shown: 1034, Size: 66}}},
		"and is put together again on the way back":  {holed(), nil, []mount.Mapping{{Disk: 1000, Shown: 0, Size: 33}, {Disk: 33, Shown: 33, Size: 1}, {Disk: 1034, Shown: 34, Size: 66}}},
		"maps that share no id let nothing through ": {Shift(1000, 10), &IDMap{UIDs: []IDRange{{Container: 50, Host: 1, Size: 5}}}, nil},
	} {
		if diff := cmp.Diff(tc.want, translate(tc.disk.uids(), tc.shown.uids())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// holed passes id 33 of the host through, as raw.idmap does.
func holed() *IDMap {
	r := []IDRange{{0, 1000, 33}, {33, 33, 1}, {34, 1034, 66}}
	return &IDMap{UIDs: r, GIDs: r}
}

func TestChainSurvivesItsEncoding(t *testing.T) {
	for name, c := range map[string]*chain{
		"fresh from an image": {Layers: []layer{{ID: "f", Image: true}}},
		"with everything": {
			Upper:   &layer{ID: "u", IDs: holed()},
			Layers:  []layer{{ID: "a", IDs: Shift(1000, 10)}, {ID: "b", IDs: holed()}, {ID: "c"}, {ID: "f", Image: true}},
			Project: 7,
		},
	} {
		data, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeChain(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Whatever stands in the attribute, reading it must not panic.
func FuzzDecodeChain(f *testing.F) {
	f.Add([]byte(`{"maps":[{"uids":[]}],"layers":[{"id":"a","map":1}]}`))
	f.Add([]byte(`{"layers":[{"id":"a","map":9}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeChain(data)
		if err == nil && len(c.Layers) == 0 {
			t.Error("a chain without layers was accepted")
		}
	})
}
