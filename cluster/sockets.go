package cluster

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"sync"
	"syscall"

	"muster/node/runtime"
)

// pumps are goroutines that move bytes, and are waited for.
type pumps struct{ group sync.WaitGroup }

func newPumps() *pumps { return &pumps{} }

func (p *pumps) start(f func()) { p.group.Go(f) }

func (p *pumps) wait() { p.group.Wait() }

// toWriter writes what the socket sends until its end: an empty text message, a
// close, or a broken connection, which is an error.
func toWriter(to io.Writer, from Socket) error {
	for {
		kind, data, err := from.ReadMessage()
		if err != nil {
			return err
		}
		if kind == SocketText && len(data) == 0 {
			return nil
		}
		if _, err := to.Write(data); err != nil {
			return err
		}
	}
}

// toTerminal writes what the socket sends until the connection ends. It calls ended each
// time that the client says that it has no more input.
func toTerminal(to io.Writer, from Socket, ended func()) {
	for toWriter(to, from) == nil {
		ended()
	}
}

// toSocket sends what the reader gives until its end, then the empty text message
// that tells clients so. An error is the socket's, and leaves the rest unread.
func toSocket(to Socket, from io.Reader) error {
	buffer := make([]byte, 32<<10)
	for {
		count, err := from.Read(buffer)
		if count > 0 {
			if err := to.WriteMessage(SocketBinary, buffer[:count]); err != nil {
				return err
			}
		}
		if err != nil {
			return to.WriteMessage(SocketText, nil)
		}
	}
}

// controlMessage is what clients say on the control socket.
type controlMessage struct {
	Command string         `json:"command"`
	Args    map[string]any `json:"args"`
	Signal  int            `json:"signal"`
}

// number reads an argument that clients send as a string or as a number.
func (m controlMessage) number(key string) int {
	switch value := m.Args[key].(type) {
	case string:
		number, _ := strconv.Atoi(value)
		return number
	case float64:
		return int(value)
	}
	return 0
}

// control obeys the control socket, should a client connect it, until the command
// ends. A client that drops it while the command runs has gone away, and the
// command with it.
func (c *Cluster) control(ctx context.Context, op *Operation, process runtime.Process) {
	socket, err := op.Socket(ctx, "control")
	if err != nil {
		return
	}
	for {
		_, data, err := socket.ReadMessage()
		if err != nil {
			select {
			case <-process.Done():
			case <-ctx.Done():
			default:
				_ = process.Hangup()
			}
			return
		}
		var message controlMessage
		if err := json.Unmarshal(data, &message); err != nil {
			c.log.Debug("control message that is not JSON", "operation", op.ID(), "error", err)
			continue
		}
		switch message.Command {
		case "window-resize":
			width, height := message.number("width"), message.number("height")
			if terminal := process.Terminal(); terminal != nil && width > 0 && height > 0 {
				_ = terminal.Resize(width, height)
			}
		case "signal":
			if message.Signal > 0 && message.Signal < 65 {
				_ = process.Signal(syscall.Signal(message.Signal))
			}
		}
	}
}
