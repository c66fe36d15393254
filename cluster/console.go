package cluster

import (
	"context"
	"encoding/json"
	"errors"

	"muster/cluster/coord"
	"muster/node"
	"muster/node/runtime"
	"muster/state"
)

// Console attaches a websocket to the console of a running instance. The
// operation ends when the client or the instance does.
func (c *Cluster) Console(ctx context.Context, project, name string, width, height int) (OperationInfo, error) {
	inst, err := c.running(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Class: coord.ClassWebsocket, Description: "Showing console", Project: project,
		Resources: instanceResources(project, name),
		Sockets:   []string{"0"}, OptionalSockets: []string{"control"},
	}, func(ctx context.Context, op *Operation) error {
		sockets, err := op.Sockets(ctx)
		if err != nil {
			return err
		}
		terminal, err := c.node.Console(ctx, inst.node)
		if err != nil {
			return err
		}
		defer terminal.Close()
		if width > 0 && height > 0 {
			_ = terminal.Resize(width, height)
		}
		showing, cancel := context.WithCancel(ctx)
		defer cancel()
		pumps := newPumps()
		pumps.start(func() { consoleControl(showing, op, terminal) })
		pumps.start(func() {
			toTerminal(terminal, sockets["0"], func() {})
			_ = terminal.Close()
		})
		stop := context.AfterFunc(showing, func() { _ = terminal.Close() })
		defer stop()
		_ = toSocket(sockets["0"], terminal)
		cancel()
		op.closeSockets()
		pumps.wait()
		return context.Cause(ctx) // nil unless somebody ended it before its client did
	})
}

// consoleControl obeys window sizes; a dropped control socket detaches.
func consoleControl(ctx context.Context, op *Operation, terminal runtime.Terminal) {
	socket, err := op.Socket(ctx, "control")
	if err != nil {
		return
	}
	for {
		_, data, err := socket.ReadMessage()
		if err != nil {
			_ = terminal.Close()
			return
		}
		var message controlMessage
		if json.Unmarshal(data, &message) == nil && message.Command == "window-resize" {
			_ = terminal.Resize(message.number("width"), message.number("height"))
		}
	}
}

// onNode returns an instance for the node, whatever its state.
func (c *Cluster) onNode(ctx context.Context, project, name string) (node.Instance, error) {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return node.Instance{}, err
	}
	if inst.Busy == "create" || inst.Busy == "delete" {
		return node.Instance{}, errBusy(inst)
	}
	return nodeInstance(c.store.View(), inst)
}

// ConsoleLog returns the newest output of an instance's console.
func (c *Cluster) ConsoleLog(ctx context.Context, project, name string) ([]byte, error) {
	inst, err := c.onNode(ctx, project, name)
	if err != nil {
		return nil, err
	}
	log, err := c.node.ConsoleLog(ctx, inst)
	if errors.Is(err, state.ErrNotFound) {
		return []byte{}, nil // it has never run
	}
	return log, err
}

// ClearConsoleLog empties the console log.
func (c *Cluster) ClearConsoleLog(ctx context.Context, project, name string) error {
	inst, err := c.onNode(ctx, project, name)
	if err != nil {
		return err
	}
	return c.node.ClearConsoleLog(ctx, inst)
}
