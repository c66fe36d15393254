package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// dialWebsocket upgrades a GET. A refusal comes back as *Error.
func (c *Client) dialWebsocket(ctx context.Context, p string, query url.Values) (*websocket.Conn, error) {
	dialer := websocket.Dialer{
		NetDialContext:   c.dial,
		TLSClientConfig:  c.dialTLS,
		HandshakeTimeout: dialTimeout,
	}
	address, err := url.Parse(c.url(p, query))
	if err != nil {
		return nil, err
	}
	if address.Scheme == "https" {
		address.Scheme = "wss"
	} else {
		address.Scheme = "ws"
	}
	c.log.DebugContext(ctx, "websocket", "path", p)
	conn, resp, err := dialer.DialContext(ctx, address.String(), http.Header{"User-Agent": {c.agent}})
	if err == nil {
		// A pong that can't be sent any more must not hide what is still to be
		// read: the other side may have closed right after its last words.
		conn.SetPingHandler(func(data string) error {
			_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
			return nil
		})
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if resp != nil && resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return nil, &ConnectionError{Server: c.name, Err: err}
}

// connect opens one of an operation's websockets.
func (o *Operation) connect(ctx context.Context, secret string) (*websocket.Conn, error) {
	return o.client.dialWebsocket(ctx, at("operations", o.ID, "websocket"), url.Values{"secret": {secret}})
}

// hangUp says goodbye and closes. The other side may be gone already, so
// failures mean nothing.
func hangUp(conn *websocket.Conn) {
	message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second))
	_ = conn.Close()
}

// receive copies what arrives into w until the stream ends: with an empty text
// message, a normal close, or a broken connection (an error).
func receive(conn *websocket.Conn, w io.Writer) error {
	for {
		kind, reader, err := conn.NextReader()
		if err != nil {
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
				return nil
			}
			return err
		}
		n, err := io.Copy(w, reader)
		if err != nil {
			return err
		}
		if kind == websocket.TextMessage && n == 0 {
			return nil
		}
	}
}

// endOfStream is the empty text message that means "no more": what stock clients
// and servers agree on.
func endOfStream(conn *websocket.Conn, _ byte) error {
	return conn.WriteMessage(websocket.TextMessage, nil)
}

// endOfTyping is what a person would press: ctrl-d, and once more when the line
// is not empty. A terminal whose input "ended" would be hung up instead, with
// the command in the middle of its work.
func endOfTyping(conn *websocket.Conn, last byte) error {
	keys := []byte{ctrlD}
	if last != '\n' && last != 0 {
		keys = append(keys, ctrlD)
	}
	return conn.WriteMessage(websocket.BinaryMessage, keys)
}

const ctrlD = 0x04

// transmit sends what r yields; at its end it calls end with the last byte sent,
// or 0.
func transmit(conn *websocket.Conn, r io.Reader, end func(conn *websocket.Conn, last byte) error) error {
	buf := make([]byte, 32*1024)
	var last byte
	for {
		n, err := r.Read(buf)
		if n > 0 {
			last = buf[n-1]
			if werr := conn.WriteMessage(websocket.BinaryMessage, buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return end(conn, last)
		}
		if err != nil {
			return err
		}
	}
}
