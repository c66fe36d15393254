package gossip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's way to the world: packets on a socket of its own,
// streams by the one port.
type transport struct {
	advertise netip.AddrPort
	packets   net.PacketConn
	accept    net.Listener
	packetCh  chan *memberlist.Packet
	streamCh  chan net.Conn
	closing   chan struct{}
	once      sync.Once
	work      sync.WaitGroup
	dial      func(member, address string, timeout time.Duration) (net.Conn, error)
	stop      context.CancelFunc

	packetsSent, bytesSent, packetsReceived, bytesReceived, dialed atomic.Uint64
}

func newTransport(ctx context.Context, cfg Config, packets net.PacketConn, advertise netip.AddrPort) *transport {
	ctx, stop := context.WithCancel(ctx)
	t := &transport{
		advertise: advertise, packets: packets, accept: cfg.Accept, stop: stop,
		packetCh: make(chan *memberlist.Packet, 64), streamCh: make(chan net.Conn), closing: make(chan struct{}),
	}
	t.dial = func(member, address string, timeout time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		t.dialed.Add(1)
		return cfg.Streams.Dial(ctx, member, address)
	}
	t.work.Go(t.readPackets)
	t.work.Go(t.acceptStreams)
	return t
}

// maxPacket is the largest payload of UDP over IPv4 (RFC 768).
const maxPacket = 65507

func (t *transport) readPackets() {
	buffer := make([]byte, maxPacket)
	for {
		n, from, err := t.packets.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		t.packetsReceived.Add(1)
		t.bytesReceived.Add(uint64(n))
		packet := &memberlist.Packet{Buf: append([]byte(nil), buffer[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packetCh <- packet:
		case <-t.closing:
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.accept.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		select {
		case t.streamCh <- conn:
		case <-t.closing:
			_ = conn.Close()
			return
		}
	}
}

// pause keeps a socket in trouble from taking a processor; it is false when the
// transport closes.
func (t *transport) pause() bool {
	select {
	case <-t.closing:
		return false
	case <-time.After(10 * time.Millisecond):
		return true
	}
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

func (t *transport) WriteTo(data []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, err
	}
	t.packetsSent.Add(1)
	t.bytesSent.Add(uint64(len(data)))
	_, err = t.packets.WriteTo(data, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

func (t *transport) WriteToAddress(data []byte, to memberlist.Address) (time.Time, error) {
	return t.WriteTo(data, to.Addr)
}

func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.dial("", address, timeout)
}

func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.dial(to.Name, to.Addr, timeout)
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// Shutdown closes both sockets and waits for their readers.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		close(t.closing)
		t.stop()
		err = errors.Join(t.packets.Close(), t.accept.Close())
		t.work.Wait()
	})
	return err
}
