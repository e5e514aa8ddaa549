package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFlows bounds the flows of one UDP port: whoever can send to it can begin
	// one with each packet.
	maxFlows = 4096
	// flowQueue is how many datagrams of a client wait to leave, the newest being
	// dropped when it is full: all that a client sends while the peer is dialled.
	flowQueue = 128
	// holdOff is how long a flow that could not be opened is not tried again: a
	// game sends sixty packets a second.
	holdOff = time.Second
	// udpBuffer is what a socket's buffers are asked to hold, in bytes.
	udpBuffer = 1 << 20
)

// flows are the clients of one UDP port.
type flows struct {
	*entry
	socket packetSocket

	mu  sync.Mutex
	all map[client]*flow
	wg  sync.WaitGroup
}

// flow is one client.
type flow struct {
	of     *flows
	client client
	out    chan []byte // datagrams to the target
	heard  atomic.Bool // something has passed lately
	// answered is done with the first datagram of the target's: only that shows that
	// there is one.
	answered sync.Once
}

// serveFlows takes datagrams until ctx ends: each source is a flow of its own.
func (e *entry) serveFlows(ctx context.Context, s packetSocket) {
	fs := &flows{entry: e, socket: s, all: make(map[client]*flow)}
	defer fs.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := s.read(buf)
		switch {
		case err == nil:
			fs.arrived(ctx, from, buf[:n])
		case errors.Is(err, net.ErrClosed):
			return
		case !rest(ctx, time.Millisecond):
			// Some systems tell here that a client is gone.
			return
		}
	}
}

// arrived hands a datagram to its flow.
func (fs *flows) arrived(ctx context.Context, from client, b []byte) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.all[from]
	if f == nil {
		if len(fs.all) >= maxFlows {
			return
		}
		f = &flow{of: fs, client: from, out: make(chan []byte, flowQueue)}
		fs.all[from] = f
		fs.wg.Go(func() { f.run(ctx) })
	}
	select {
	case f.out <- append([]byte(nil), b...):
	default:
	}
}

// run carries a flow until it is idle or has broken off. A client that goes on then
// begins a new one.
func (f *flow) run(ctx context.Context) {
	err := f.carry(ctx)
	if err != nil && ctx.Err() == nil {
		f.of.failed(err)
		rest(ctx, holdOff)
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	delete(f.of.all, f.client)
}

func (f *flow) carry(ctx context.Context) error {
	c, err := f.of.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	p := &passage{conn: c}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.close()
	wg.Go(func() {
		_, err := readReply(c)
		if err == nil && p.open() {
			wg.Go(func() { p.packets(f.back) })
			err = p.frames(f.back, func() { f.of.failed(&RefusedError{status: statusRefused}) })
		}
		cancel(err)
	})
	return f.send(ctx, p)
}

// back gives the client what the target sent.
func (f *flow) back(b []byte) {
	f.heard.Store(true)
	f.answered.Do(f.of.worked)
	_ = f.of.socket.write(b, f.client)
}

// errEnded says that a flow is over for no reason that anybody has to know.
var errEnded = errors.New("flow ended")

// send sends what the client sends, until the flow is idle or ctx ends.
func (f *flow) send(ctx context.Context, p *passage) error {
	idle := time.NewTicker(idleTime)
	defer idle.Stop()
	for {
		select {
		case b := <-f.out:
			f.heard.Store(true)
			if p.send(b) != nil {
				// The stream's end says why.
				<-ctx.Done()
			}
		case <-idle.C:
			if !f.heard.Swap(false) {
				return nil
			}
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errEnded) {
				return err
			}
			return nil
		}
	}
}

// passage is one end of a flow between the peers.
type passage struct {
	conn Conn

	mu     sync.Mutex
	beside io.ReadWriteCloser // where datagrams travel beside the stream; nil: not yet
	closed bool

	sending sync.Mutex // may be held for as long as the way to the peer is closed
	split   splitter
	frame   []byte
}

// open lets datagrams travel beside the stream; false if the flow is over already.
func (p *passage) open() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.beside = p.conn.Packets()
	}
	return !p.closed
}

// close ends the flow on both sides.
func (p *passage) close() {
	_ = p.conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.beside != nil {
		_ = p.beside.Close()
	}
}

// send sends one datagram.
func (p *passage) send(b []byte) error {
	p.mu.Lock()
	beside := p.beside
	p.mu.Unlock()
	p.sending.Lock()
	defer p.sending.Unlock()
	if beside != nil {
		if first, second := p.split.packets(b); first != nil {
			_, err := beside.Write(first)
			if err == nil && second != nil {
				_, err = beside.Write(second)
			}
			return err
		}
	}
	return p.frameLocked(frameDatagram, b)
}

func (p *passage) frameLocked(kind byte, body []byte) error {
	p.frame = appendFrame(p.frame[:0], kind, body)
	_, err := p.conn.Write(p.frame)
	return err
}

// refused tells the other end that nothing listens at the target.
func (p *passage) refused() {
	p.sending.Lock()
	defer p.sending.Unlock()
	_ = p.frameLocked(frameRefused, nil)
}

// packets hands on what travels beside the stream, until that is closed.
func (p *passage) packets(to func([]byte)) {
	var j joiner
	buf := make([]byte, 1<<16)
	for {
		n, err := p.beside.Read(buf)
		if err != nil {
			return
		}
		if b, whole := j.join(buf[:n]); whole {
			to(b)
		}
	}
}

// frames hands on what travels in the stream, until that ends.
func (p *passage) frames(to func([]byte), refused func()) error {
	buf := make([]byte, maxUDP)
	for {
		kind, body, err := readFrame(p.conn, buf)
		switch {
		case errors.Is(err, io.EOF):
			return errEnded
		case err != nil:
			return err
		case kind == frameRefused:
			refused()
		default:
			to(body)
		}
	}
}

// exitFlow carries a flow between the peer and the target, which it reaches from a
// port of its own: what listens there tells clients apart by it.
func exitFlow(c Conn, s *net.UDPConn) {
	_ = s.SetReadBuffer(udpBuffer)
	_ = s.SetWriteBuffer(udpBuffer)
	p := &passage{conn: c}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.close()
	to := func(b []byte) { _, _ = s.Write(b) }
	p.open()
	wg.Go(func() { p.packets(to) })
	if _, err := c.Write(reply{}.bytes()); err != nil {
		_ = s.Close()
		return
	}
	wg.Go(func() {
		defer func() { _ = c.Abort() }()
		p.fromTarget(s)
	})
	_ = p.frames(to, func() {})
	_ = s.Close()
}

// fromTarget sends what the target sends, until the socket is closed.
func (p *passage) fromTarget(s *net.UDPConn) {
	buf := make([]byte, 1<<16)
	told := false
	for {
		n, err := s.Read(buf)
		switch {
		case err == nil:
			told = false
			if p.send(buf[:n]) != nil {
				return
			}
		case errors.Is(err, net.ErrClosed):
			return
		case !told:
			// An earlier datagram of ours met no listener. One may come: the
			// flow stays.
			told = true
			p.refused()
		}
	}
}
