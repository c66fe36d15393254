package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// pulse tells whether the local node has led without a break since the pulse was made.
// It is a connection that has the database open. dqlite 1.11.1 closes the database of
// each connection when the node loses the leadership, and refuses to open a second one
// on a connection whose database is open: so asking to open it again tells, in some 30
// µs, without SQL, without the writer's connection and without an entry in the log.
// TestAPulseEndsWithTheLeadership holds dqlite to it.
type pulse struct {
	// turn has room for one: who asks holds it.
	turn chan struct{}
	conn net.Conn
	// over says that the pulse has stopped: the question that found out has opened the
	// database anew. It belongs to who has the turn.
	over bool
}

// errNoPulse means that the node has not led all the time.
var errNoPulse = errors.New("the leadership was interrupted")

// dqlite's wire protocol, as far as a pulse needs it (dqlite's doc/protocol.md).
const (
	protocolVersion  = 1
	requestOpen      = 3
	responseFailure  = 0
	responseDatabase = 4
	codeBusy         = 5
	// mostAnswer bounds an answer, in bytes; a refusal is a sentence.
	mostAnswer = 4096
)

// newPulse begins at this moment. That the node leads at all is for somebody to see later.
func newPulse(ctx context.Context, n *node) (*pulse, error) {
	conn, err := n.dialLocal(ctx)
	if err != nil {
		return nil, err
	}
	p := &pulse{turn: make(chan struct{}, 1), conn: conn}
	_ = conn.SetDeadline(time.Now().Add(patience))
	hello := binary.LittleEndian.AppendUint64(nil, protocolVersion)
	if _, err = conn.Write(hello); err == nil {
		var kind byte
		if kind, _, err = p.open(); err == nil && kind != responseDatabase {
			err = fmt.Errorf("the node answers %d to a request to open the database", kind)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("open the database to watch over the leadership: %w", err)
	}
	return p, nil
}

// beats returns nil when the node has led without a break, given that it led at some time
// after newPulse.
func (p *pulse) beats(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	if p.over {
		return errNoPulse
	}
	// Not the deadline of ctx: half an answer would be left for who asks next.
	_ = p.conn.SetDeadline(time.Now().Add(patience))
	kind, code, err := p.open()
	if p.over = err != nil || kind != responseFailure || code != codeBusy; p.over {
		return errors.Join(errNoPulse, err, p.conn.Close())
	}
	return nil
}

// open asks for the database, and returns what kind the answer is and the code of a
// refusal.
func (p *pulse) open() (kind byte, code uint64, err error) {
	body := append(word(databaseName), make([]byte, 8)...) // no flags
	body = append(body, word("volatile")...)
	message := binary.LittleEndian.AppendUint32(nil, uint32(len(body)/8))
	message = append(message, requestOpen, 0, 0, 0)
	if _, err := p.conn.Write(append(message, body...)); err != nil {
		return 0, 0, err
	}
	var header [8]byte
	if _, err := io.ReadFull(p.conn, header[:]); err != nil {
		return 0, 0, err
	}
	size := 8 * int(binary.LittleEndian.Uint32(header[:4]))
	if size < 8 || size > mostAnswer {
		return 0, 0, fmt.Errorf("an answer of %d bytes", size)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(p.conn, answer); err != nil {
		return 0, 0, err
	}
	return header[4], binary.LittleEndian.Uint64(answer), nil
}

// word is a text as the protocol has it: ended by a zero byte and filled up with more, to
// a multiple of eight.
func word(text string) []byte {
	return append([]byte(text), make([]byte, 8-len(text)%8)...)
}

func (p *pulse) close() { _ = p.conn.Close() }
