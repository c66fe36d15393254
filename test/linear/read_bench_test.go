package linear

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"muster/test/lab"
)

// BenchmarkRead is how long one read takes through the database's leader and through
// another member, fresh and not, on one connection that stays open.
func BenchmarkRead(b *testing.B) {
	lab.NeedsRoot(b)
	members := lab.ClusterOf(b, 3, lab.Options{NoInit: true, Network: lab.NewNetwork(b)})
	rows, err := members[0].Rows(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	leader := slices.IndexFunc(rows, lab.Row.Leads)
	if leader < 0 {
		b.Fatal("nobody leads the database")
	}
	for name, c := range map[string]struct {
		via   *lab.Member
		query string
	}{
		"leader": {members[leader], ""}, "follower": {members[(leader+1)%3], ""}, "follower-stale": {members[(leader+1)%3], "?stale=1"},
	} {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", c.via.Socket())
			}}}
			defer client.CloseIdleConnections()
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://muster/1.0/profiles/default"+c.query, nil)
				if err != nil {
					b.Fatal(err)
				}
				answer, err := client.Do(request)
				if err != nil {
					b.Fatal(err)
				}
				_, err = io.Copy(io.Discard, answer.Body)
				took = append(took, time.Since(began))
				if err != nil || answer.Body.Close() != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Muster-Stale") != "" {
					b.Fatalf("%s %v, %v", answer.Status, answer.Header, err)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
