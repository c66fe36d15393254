package rest

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"muster/cluster"
)

// taken is an answer whose connection can be taken over.
type taken struct {
	http.ResponseWriter
	conn net.Conn
	rw   *bufio.ReadWriter
}

func (x taken) Hijack() (net.Conn, *bufio.ReadWriter, error) { return x.conn, x.rw, nil }

// websocketPair is both ends of a websocket that has no kernel below it, so that the
// clock of a bubble holds for it.
func websocketPair(t *testing.T) (server, client *websocket.Conn) {
	t.Helper()
	far, near := net.Pipe()
	t.Cleanup(func() { _, _ = far.Close(), near.Close() })
	upgraded := make(chan *websocket.Conn, 1)
	go func() { // ends with the pipe
		defer close(upgraded)
		rw := bufio.NewReadWriter(bufio.NewReader(far), bufio.NewWriter(far))
		r, err := http.ReadRequest(rw.Reader)
		if err != nil {
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(taken{httptest.NewRecorder(), far, rw}, r, nil)
		if err == nil {
			upgraded <- conn
		}
	}()
	client, _, err := websocket.NewClient(near, &url.URL{Scheme: "ws", Host: "muster", Path: "/"}, nil, 0, 0) //nolint:bodyclose,staticcheck // over a connection that is there; a 101 has no body
	if err != nil {
		t.Fatal(err)
	}
	if server = <-upgraded; server == nil {
		t.Fatal("the websocket was not upgraded")
	}
	return server, client
}

// A listener that is never without an event for long keeps its connection, and one that
// answers no ping loses it however much there is to tell.
func TestListenersOfABusyServerArePinged(t *testing.T) {
	for name, answers := range map[string]bool{"answers": true, "answers no ping": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := websocketPair(t)
				hub := cluster.NewEvents(cluster.EventsConfig{})
				listener, err := hub.Subscribe(cluster.Interest{AllProjects: true})
				if err != nil {
					t.Fatal(err)
				}
				if !answers {
					client.SetPingHandler(func(string) error { return nil })
				}
				sent := make(chan error, 1)
				go func() { sent <- send(t.Context(), server, listener) }()
				gone := make(chan int, 1)
				go func() {
					heard := 0
					for {
						if _, _, err := client.ReadMessage(); err != nil {
							gone <- heard
							return
						}
						heard++
					}
				}()
				const events = 60
				for range events {
					time.Sleep(10 * time.Second)
					hub.Lifecycle(time.Now(), "", "default", 1, cluster.Lifecycle{Action: "instance-started"})
				}
				synctest.Wait()
				select {
				case heard := <-gone:
					if answers {
						t.Errorf("the listener was cut after %d of %d events", heard, events)
					}
				default:
					if !answers {
						t.Error("a listener that answers no ping is still there")
					}
				}
				listener.Close()
				_ = client.Close()
				if err := <-sent; err != nil && answers && !errors.Is(err, net.ErrClosed) {
					t.Logf("ended with %v", err)
				}
			})
		})
	}
}
