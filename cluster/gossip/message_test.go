package gossip

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeLoad(f *testing.F) {
	now := time.Unix(1000, 0)
	good := encodeLoad(record{id: "m00", seq: 9, at: now, load: Load{FreeCPU: 1, FreeMemory: 2, FreeDisk: 3, Instances: 4}}, now)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{version, kindLoad, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeState(data, now)
		_, _, _, _ = decodeNotice(data)
		r, err := decodeLoad(data, now)
		if err != nil {
			return
		}
		again, err := decodeLoad(encodeLoad(r, now), now)
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(record{})); err != nil || diff != "" {
			t.Errorf("decoded again: %v\n%s", err, diff)
		}
	})
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	now := time.Unix(1000, 0)
	good := encodeLoad(record{id: "m00", seq: 9, at: now}, now)
	for name, data := range map[string][]byte{
		"nothing":         {},
		"a later version": append([]byte{version + 1}, good[1:]...),
		"cut short":       good[:len(good)-1],
		"an ID too long":  {version, kindLoad, 200, 1},
		"too large":       append(good, make([]byte, maxMessage)...),
	} {
		if _, err := decodeLoad(data, now); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := decodeLoad(append(good, 1, 2, 3), now); err != nil {
		t.Errorf("fields of a later release: %v; want them skipped", err)
	}
	g := &Gossip{id: "m00", table: newTable("m00")}
	delegate{g}.NotifyMsg([]byte{version, kindLoad})
	delegate{g}.MergeRemoteState([]byte("?"), false)
	if g.dropped.Load() != 2 {
		t.Errorf("dropped %d messages; want 2 counted", g.dropped.Load())
	}
}
