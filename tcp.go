package bodkin

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/punch"
)

// packets is how packets stand on a connection with a peer.
var packets = sock.Framing{
	Room: wire.MaxPacketFrame, Read: wire.ReadPacketFrame, Append: wire.AppendPacketFrame, Size: wire.PacketFrameSize,
}

// tcpPort is one of the node's TCP ports: the listener and every connection with a peer
// have it.
type tcpPort struct {
	net.Listener
	network string
	local   punch.Local
	bound   netip.AddrPort
}

// endpoints are both ends of a connection.
type endpoints struct {
	port punch.Local
	to   netip.AddrPort
}

// connection is a connection with a peer, or the way to it.
type connection struct {
	endpoints
	cancel context.CancelFunc // gives a connect up
	stream *sock.Stream       // nil: it does not stand yet
	conn   net.Conn
}

// arrival is a connection that stands: one that the core asked for, or one that came
// in, with the first packet that it carries.
type arrival struct {
	endpoints
	local  punch.Local
	over   chan struct{} // of the connect
	conn   net.Conn
	stream *sock.Stream
	err    error
	first  []byte
	// taken tells the reader of a connection that came in by which Local; 0: close it.
	taken chan punch.Local
}

// openPorts opens a TCP port for each address family, of the same number as the UDP
// socket if it is free. A node without any does not punch by TCP.
func (n *Node) openPorts(ctx context.Context) {
	network, ok := n.cfg.Network.(sock.StreamNetwork)
	if !ok {
		return
	}
	for i, s := range n.sockets {
		name := "tcp6"
		if s.Is4() {
			name = "tcp4"
		}
		l, err := network.ListenTCP(ctx, name, s.Local())
		if err != nil {
			if n.cfg.Port != 0 {
				n.cfg.Logger.Warn("the TCP port is taken: another one is used", "port", n.cfg.Port, "error", err)
			}
			l, err = network.ListenTCP(ctx, name, netip.AddrPortFrom(s.Local().Addr(), 0))
		}
		if err != nil {
			n.cfg.Logger.Warn("no holes by TCP", "network", name, "error", err)
			continue
		}
		at, _ := l.Addr().(*net.TCPAddr)
		n.ports = append(n.ports, tcpPort{l, name, punch.NewLocal(punch.TCP, uint32(i+1)), unmapped(at.AddrPort())})
	}
}

func unmapped(e netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(e.Addr().Unmap(), e.Port()) }

// connectPeer connects beside the loop, which hears of it as an arrival.
func (l *loop) connectPeer(a node.Action) {
	n, e := l.node, endpoints{a.Port, a.By.To}
	for _, c := range l.conns {
		if c.endpoints == e && a.Port != 0 {
			l.queue = append(l.queue, node.Input{Op: node.PeerGone, Local: a.By.Local, From: a.By.To, Why: punch.Busy})
			return
		}
	}
	from := n.portOf(a.Port, a.By.To)
	ctx, cancel := context.WithTimeout(n.ctx, connectTime)
	l.conns[a.By.Local] = &connection{endpoints: e, cancel: cancel}
	before, over := l.connects[e], make(chan struct{})
	if a.Port != 0 {
		l.connects[e] = over
	}
	network, _ := n.cfg.Network.(sock.StreamNetwork)
	n.wg.Go(func() {
		defer close(over)
		if before != nil {
			<-before // given up, and on its way out
		}
		c, err := network.DialTCP(ctx, from.network, from.bound, a.By.To, 0)
		select {
		case n.arrivals <- arrival{endpoints: e, local: a.By.Local, over: over, conn: c, err: err}:
		case <-n.ctx.Done():
			if err == nil {
				_ = c.Close()
			}
		}
		cancel()
	})
}

// portOf is one of our ports, or any of the family of an endpoint.
func (n *Node) portOf(local punch.Local, to netip.AddrPort) tcpPort {
	for _, p := range n.ports {
		if p.local == local {
			return p
		}
	}
	if to.Addr().Is4() {
		return tcpPort{network: "tcp4", bound: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
	}
	return tcpPort{network: "tcp6", bound: netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}
}

// arrived takes in what came of a connect.
func (l *loop) arrived(a arrival) {
	if a.taken != nil {
		l.accepted(a)
		return
	}
	c := l.conns[a.local]
	if l.connects[a.endpoints] == a.over {
		delete(l.connects, a.endpoints)
	}
	switch {
	case c == nil:
		if a.err == nil {
			abort(a.conn)
		}
	case a.err != nil:
		delete(l.conns, a.local)
		l.node.cfg.Logger.Debug("not connected", "to", c.to, "error", a.err)
		l.step(node.Input{Op: node.PeerGone, Local: a.local, From: c.to, Why: failure(a.err)})
	default:
		c.conn, c.stream = a.conn, sock.NewStream(a.conn, c.to, packets, nil)
		sock.TuneTCP(a.conn)
		l.node.path.SetSocket(a.local, c.stream)
		l.node.readStream(a.local, c.stream)
		l.step(node.Input{Op: node.PeerConnected, Local: a.local, From: c.to})
	}
}

// readStream reads a connection until it ends.
func (n *Node) readStream(local punch.Local, s *sock.Stream) {
	n.wg.Go(func() {
		_ = s.Read(n.deliver(local, s), func() time.Time { return time.Time{} })
		n.tell(node.Input{Op: node.PeerGone, Local: local, From: s.Remote(), Why: punch.Ended})
	})
}

// deliver takes the packets of a connection, until it is handed over.
func (n *Node) deliver(local punch.Local, s *sock.Stream) func(b []byte) bool {
	from := s.Remote()
	return func(b []byte) bool {
		if n.handOver(local, s, b) {
			return false
		}
		n.path.Deliver(local, from, b)
		return true
	}
}

// disconnect gives a connect up, or ends a connection at once: its endpoints are free
// for another one then.
func (l *loop) disconnect(local punch.Local) {
	c := l.conns[local]
	if c == nil {
		return
	}
	delete(l.conns, local)
	c.cancel()
	if c.stream != nil {
		l.node.path.SetSocket(local, nil)
		abort(c.conn)
	}
}

// abort closes a connection with a reset: nothing of it stays behind, here or in NATs.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// failure is why a connect failed.
func failure(err error) punch.Failure {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return punch.Unsupported
	case sock.Refused(err):
		return punch.Refused
	case sock.NoWay(err):
		return punch.NoWay
	case sock.PortTaken(err), sock.NoRoom(err):
		return punch.Busy
	default:
		return punch.TimedOut
	}
}

// askTCP asks the server by a connection of its own, from a port that is new to our NAT.
func (n *Node) askTCP(a node.Action) {
	ctx, cancel := context.WithTimeout(n.ctx, askTCPTime)
	defer cancel()
	in := node.Input{Op: node.SeenTCP}
	if c, err := n.dialTCP(ctx, 0, a.By.To); err == nil {
		defer abort(c)
		at, _ := c.LocalAddr().(*net.TCPAddr)
		in.From = unmapped(at.AddrPort())
		deadline, _ := ctx.Deadline()
		_ = c.SetDeadline(deadline)
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		if _, err := c.Write(wire.AppendFrame(nil, a.Data)); err == nil {
			in.Data, _ = wire.ReadFrame(bufio.NewReaderSize(c, wire.MaxFrame))
		}
	}
	n.tell(in)
}

// askTCPTime is how long a server may take for an answer by TCP.
const askTCPTime = 3 * time.Second
