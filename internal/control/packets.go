package control

import (
	"fmt"
	"io"
	"net"
	"sync"

	"bodkin"
	"bodkin/internal/app/forward"
)

// packetQueue is how many datagrams wait to be read; the newest is dropped when it is
// full.
const packetQueue = 256

// packets are the datagrams beside a stream.
type packets struct {
	of     *stream
	queue  chan []byte
	asked  chan struct{} // closed when the other side takes some
	done   chan struct{}
	begin  sync.Once
	ask    sync.Once
	finish sync.Once
}

func (p *packets) init(s *stream) {
	p.of, p.queue = s, make(chan []byte, packetQueue)
	p.asked, p.done = make(chan struct{}), make(chan struct{})
}

// Packets are datagrams beside the stream, from the first call on.
func (s *stream) Packets() io.ReadWriteCloser {
	s.packets.begin.Do(func() { _ = s.packets.send(framePackets, nil) })
	return &s.packets
}

// wanted notes that the other side takes datagrams, and will send some.
func (p *packets) wanted() { p.ask.Do(func() { close(p.asked) }) }

func (p *packets) arrived(b []byte) {
	select {
	case p.queue <- append([]byte(nil), b...):
	default:
	}
}

// Read returns one datagram.
func (p *packets) Read(b []byte) (int, error) {
	select {
	case d := <-p.queue:
		return copy(b, d), nil
	case <-p.done:
		return 0, net.ErrClosed
	}
}

// Write sends one datagram.
func (p *packets) Write(b []byte) (int, error) {
	if len(b) > bodkin.MaxDatagram {
		return 0, fmt.Errorf("datagram of %d bytes: the largest has %d", len(b), bodkin.MaxDatagram)
	}
	if err := p.send(framePacket, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// send sends a frame whether or not our direction of the stream has ended.
func (p *packets) send(kind byte, body []byte) error {
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	return p.of.tell(kind, body)
}

// Close ends reading and writing.
func (p *packets) Close() error {
	p.finish.Do(func() { close(p.done) })
	return nil
}

// joinPackets connects the datagrams beside a command's stream with those beside the
// peer's connection, if the command wants any, until the command's stream ends.
func joinPackets(command *stream, c forward.Conn) {
	select {
	case <-command.packets.asked:
	case <-command.packets.done:
		return
	}
	far := c.Packets()
	var wg sync.WaitGroup
	wg.Go(func() { copyPackets(&command.packets, far) })
	copyPackets(far, &command.packets)
	_ = far.Close()
	wg.Wait()
}

// copyPackets copies datagrams until either side is closed.
func copyPackets(to io.Writer, from io.Reader) {
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
