package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"

	"bodkin/internal/app/forward"
	"bodkin/internal/app/pipe"
	"bodkin/peer"
)

// stream is either end of a connection through the running node, in frames over
// the socket.
type stream struct {
	socket net.Conn
	in     *io.PipeReader // what arrived, from the reader goroutine
	ctx    context.Context
	cancel context.CancelCauseFunc // ends writing
	peer   peer.ID                 // of one that a listener took

	packets packets

	mu  sync.Mutex // of writing
	buf []byte
}

// ErrGone is the error of what went through a running node that has ended.
var ErrGone = errors.New("the running node has ended")

var errUnread = errors.New("the peer reads no more of it")

// newStream begins to read frames from r, which reads socket.
func newStream(socket net.Conn, r io.Reader) *stream {
	in, arrived := io.Pipe()
	s := &stream{socket: socket, in: in}
	s.packets.init(s)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	go s.read(r, arrived)
	return s
}

// read takes frames in until the socket ends.
func (s *stream) read(r io.Reader, arrived *io.PipeWriter) {
	buf := make([]byte, maxFrame)
	for {
		kind, body, err := readFrame(r, buf)
		if err != nil {
			if !errors.Is(err, errFrame) {
				err = ErrGone
			}
			_ = arrived.CloseWithError(err)
			s.cancel(err)
			_ = s.packets.Close()
			return
		}
		switch kind {
		case frameData:
			// An error means that nobody reads here any more: the frames that
			// say how it ends still count.
			_, _ = arrived.Write(body)
		case frameEnd:
			_ = arrived.Close()
		case frameFailed:
			_ = arrived.CloseWithError(parseError(body))
		case frameUnread:
			s.cancel(parseError(body))
		case framePackets:
			s.packets.wanted()
		case framePacket:
			s.packets.arrived(body)
		}
	}
}

// parseError reads an Error from a frame.
func parseError(body []byte) error {
	var e Error
	if json.Unmarshal(body, &e) != nil || e.Text == "" {
		return &Error{Kind: KindOther, Text: "the connection broke off"}
	}
	return &e
}

// Read implements [io.Reader]. io.EOF is the end that the other side wrote, and
// nothing else is.
func (s *stream) Read(b []byte) (int, error) { return s.in.Read(b) }

// Write implements [io.Writer].
func (s *stream) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := b[:min(len(b), maxFrame)]
		if err := s.send(frameData, piece); err != nil {
			return n, err
		}
		n, b = n+len(piece), b[len(piece):]
	}
	return n, nil
}

// send writes one frame of our direction; all but data end it.
func (s *stream) send(kind byte, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if err := s.write(kind, body); err != nil {
		return err
	}
	if kind != frameData {
		s.cancel(io.ErrClosedPipe)
	}
	return nil
}

// write is called under the lock.
func (s *stream) write(kind byte, body []byte) error {
	s.buf = appendFrame(s.buf[:0], kind, body)
	if _, err := s.socket.Write(s.buf); err != nil {
		s.cancel(ErrGone)
		return ErrGone
	}
	return nil
}

// CloseWrite ends our direction.
func (s *stream) CloseWrite() error {
	err := s.send(frameEnd, nil)
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// fail ends our direction with an error for the other side.
func (s *stream) fail(err error) {
	body, _ := json.Marshal(errorOf(err))
	_ = s.send(frameFailed, body)
}

// tell writes a frame that ends nothing.
func (s *stream) tell(kind byte, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(kind, body)
}

// unread tells the other side that what it writes is not read any more.
func (s *stream) unread(err error) {
	body, _ := json.Marshal(errorOf(err))
	_ = s.tell(frameUnread, body)
}

// Close ends everything. What was written arrives.
func (s *stream) Close() error {
	_ = s.CloseWrite()
	return s.Abort()
}

// Abort ends everything; a direction that was not ended breaks off.
func (s *stream) Abort() error {
	s.cancel(io.ErrClosedPipe)
	_ = s.in.Close()
	return s.socket.Close()
}

// CloseRead gives up on what the other side may still write.
func (s *stream) CloseRead() error {
	s.unread(errUnread)
	return s.in.Close()
}

// Peer is who is at the other end of a stream that a listener took.
func (s *stream) Peer() peer.ID { return s.peer }

// Context ends when nothing can be written any more.
func (s *stream) Context() context.Context { return s.ctx }

// join connects a command's stream with the peer's connection, until both
// directions have ended.
func join(command *stream, c forward.Conn) {
	var beside, wg sync.WaitGroup
	beside.Go(func() { joinPackets(command, c) })
	defer beside.Wait()
	// A command that goes reads no more, even if nothing is left for it to write.
	beside.Go(func() {
		<-command.packets.done
		closeRead(c)
	})
	wg.Go(func() {
		switch read, write := pipe.Copy(c, command); {
		case read != nil:
			_ = c.Abort()
		case write != nil:
			command.unread(write)
		default:
			_ = c.CloseWrite()
		}
	})
	// The peer may give up on us while the command has nothing to send.
	stop := context.AfterFunc(c.Context(), func() { command.unread(errUnread) })
	defer stop()
	switch read, write := pipe.Copy(command, c); {
	case read != nil:
		command.fail(read)
	case errors.Is(write, ErrGone):
		_ = c.Abort()
	case write != nil:
		closeRead(c)
	default:
		_ = command.CloseWrite()
	}
	wg.Wait()
	_ = c.Close()
	_ = command.Close()
}

// closeRead gives up on what a connection's peer may still write.
func closeRead(c forward.Conn) {
	if r, ok := c.(interface{ CloseRead() error }); ok {
		_ = r.CloseRead()
	}
}
