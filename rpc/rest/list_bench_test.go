package rest

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/state"
	"muster/state/store"
)

// crowded is a realm with n recorded instances that nothing stands behind.
func crowded(b *testing.B, n int) *realm {
	b.Helper()
	x := newRealm(b)
	var writers errgroup.Group
	writers.SetLimit(256)
	for i := range n {
		writers.Go(func() error {
			name := fmt.Sprintf("c%05d", i)
			_, err := x.store.Apply(b.Context(), store.CreateInstance{
				Instance: state.Instance{
					Project: "default", Name: name, Location: "ant", Architecture: "x86_64", Profiles: []string{"default"}, CreatedAt: time.Now(),
					Config: state.Config{
						"limits.cpu": "2", "limits.memory": "1GiB", "image.os": "Debian", "image.release": "bookworm", "user.owner": "somebody",
						"volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.uuid": "5f0c1f5e-0000-4000-8000-000000000001", "volatile.base_image": "0123456789abcdef",
					},
					Devices: state.Devices{"eth0": {"type": "nic", "nictype": "p2p", "name": "eth0"}, "data": {"type": "disk", "path": "/data", "source": "/srv"}},
				},
				Intent: state.Intent{ID: name},
			})
			if err == nil {
				_, err = x.store.Apply(b.Context(), store.FinishCreate{Project: "default", Name: name, IntentID: name, Status: state.StatusRunning})
			}
			return err
		})
	}
	x.must(writers.Wait())
	return x
}

func BenchmarkLists(b *testing.B) {
	for _, n := range []int{200, 10_000} {
		x := crowded(b, n)
		for _, query := range []string{"", "?recursion=1", "?recursion=1&filter=name+eq+c00042", "?recursion=1&filter=config.image.os+eq+Debian"} {
			b.Run(fmt.Sprintf("%d%s", n, query), func(b *testing.B) {
				var size int64
				for b.Loop() {
					request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, x.local.base+"/1.0/instances"+query, nil)
					if err != nil {
						b.Fatal(err)
					}
					answer, err := x.local.client.Do(request)
					if err != nil {
						b.Fatal(err)
					}
					if size, err = io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
						b.Fatal(answer.Status, err)
					}
					answer.Body.Close()
				}
				b.ReportMetric(float64(size)/1024, "KiB")
			})
		}
	}
}
