package bodkin

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/session"
	"bodkin/internal/sock"
	"bodkin/peer"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// Node is this machine among its peers. All methods are safe for concurrent use.
type Node struct {
	cfg      Config
	url      rendezvous.URL
	instance uint64
	started  time.Time

	path     *path.Socket
	sessions *session.Manager
	sockets  []*sock.Socket
	streams  streams
	icmp     []*sock.ICMP
	beacon   *sock.Beacon                  // without a server
	echoes   [2]atomic.Pointer[echoServer] // of the sockets for ICMP
	ports    []tcpPort
	door     door

	inputs   chan node.Input
	arrivals chan arrival
	calls    chan func(*loop) // what others want of the loop
	core     *node.Core       // of the loop alone
	events   broadcaster
	known    known

	policy   policy
	pairings pairings

	handovers handovers

	resolving atomic.Bool
	beaconing sync.Once
	mapping   sync.Once

	ctx    context.Context // ends with the node
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// Start opens a node's sockets and begins to register it with its server. It
// does not wait for the server: Dial does, and [Node.WaitRegistered]. The node
// runs until Close; ctx bounds only the start.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg, url, err := cfg.check()
	if err != nil {
		return nil, err
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	n := &Node{
		cfg:      cfg,
		url:      url,
		instance: binary.BigEndian.Uint64(seed[:]) | 1, // 0 stands for whichever accepts
		started:  time.Now(),
		inputs:   make(chan node.Input, 256),
		arrivals: make(chan arrival),
		calls:    make(chan func(*loop)),
	}
	n.policy.set(cfg.Peers)
	n.ctx, n.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := n.openSockets(ctx); err != nil {
		n.cancel(err)
		return nil, err
	}
	if err := errors.Join(n.openICMP(ctx), n.openBeacon(ctx)); err != nil {
		n.closeSockets()
		n.cancel(err)
		return nil, err
	}
	if cfg.abilities().Has(punch.ByTCP) {
		n.openPorts(ctx)
	}
	n.path = path.NewSocket(path.SocketConfig{
		Overlay: peer.Overlay(n.ID(), n.instance),
		Dialled: session.Dialled,
		ConnID:  session.ConnID,
		Control: func(by path.Key, b []byte) {
			n.offer(node.Input{Op: node.Packet, By: by, Data: b})
		},
		Answered: func(overlay netip.Addr) { n.offer(node.Input{Op: node.Answered, Overlay: overlay}) },
		Active: func(overlay netip.Addr, by path.Key, heard time.Time, size int) {
			n.offer(node.Input{Op: node.Active, Overlay: overlay, By: by, Heard: heard, Size: size})
		},
	})
	for i, s := range n.sockets {
		n.path.SetSocket(punch.Local(i+1), s)
	}
	n.setICMP()
	if n.sessions, err = session.NewManager(n.sessionConfig()); err != nil {
		n.closeSockets()
		n.path.Close()
		n.cancel(err)
		return nil, fmt.Errorf("bodkin: %w", err)
	}
	n.core = node.New(node.Config{
		Key: cfg.Key, Server: url.ID, Instance: n.instance, Peers: cfg.Peers,
		Abilities: n.abilities(), Traffic: n.path.RouteTraffic,
		Serverless: cfg.Serverless != nil, At: cfg.at(),
	})
	n.run()
	return n, nil
}

// openSockets opens a socket for each address family that the system has.
func (n *Node) openSockets(ctx context.Context) error {
	v4, v6 := n.cfg.bindAddrs()
	var errs []error
	for network, bind := range map[string]netip.AddrPort{"udp4": v4, "udp6": v6} {
		s, err := sock.Open(ctx, n.cfg.Network, network, bind)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n.sockets = append(n.sockets, s)
	}
	if len(n.sockets) == 0 || n.cfg.Port != 0 && len(errs) > 0 && !noFamily(errs) {
		n.closeSockets()
		return fmt.Errorf("bodkin: open UDP port %d: %w", n.cfg.Port, errors.Join(errs...))
	}
	return nil
}

// run starts what runs until Close: the control loop and a reader a socket.
func (n *Node) run() {
	n.wg.Go(n.loop)
	for i, s := range n.sockets {
		n.read(punch.Local(i+1), s)
	}
	n.readICMP()
	for _, p := range n.ports {
		n.wg.Go(func() { n.answer(p) })
	}
}

// read reads a socket until it is closed.
func (n *Node) read(local punch.Local, s *sock.Socket) {
	n.wg.Go(func() {
		err := s.ReadRuns(func(from netip.AddrPort, b []byte, segment int) bool {
			return n.path.DeliverRun(local, from, b, segment)
		})
		if err != nil {
			n.cfg.Logger.Error("socket failed", "socket", s.Local(), "error", err)
		}
	})
}

// offer hands the loop something that may be dropped if it is far behind.
func (n *Node) offer(in node.Input) {
	select {
	case n.inputs <- in:
	default:
	}
}

// tell hands the loop something that must not be lost.
func (n *Node) tell(in node.Input) {
	select {
	case n.inputs <- in:
	case <-n.ctx.Done():
	}
}

// ID is who this node is.
func (n *Node) ID() peer.ID { return n.cfg.Key.ID() }

// Listen takes connections to a service from now on. Its Accept returns
// *[Conn]s; it refuses, and the peer is told, what Config.Peers and Config.Allow
// do not let in. If another process listens with the same key, this one takes
// its place, and Accept there returns [ErrDisplaced].
func (n *Node) Listen(service string) (net.Listener, error) {
	l, err := n.sessions.Listen(service)
	if err != nil {
		return nil, err
	}
	n.accept()
	return &listener{Listener: l, node: n}, nil
}

// ListenPacket takes datagrams to a service from now on: unreliable, unordered,
// and encrypted like everything. ReadFrom's addresses name peer and flow.
func (n *Node) ListenPacket(service string) (net.PacketConn, error) {
	l, err := n.sessions.ListenPacket(service)
	if err != nil {
		return nil, err
	}
	n.accept()
	return l, nil
}

// accept lets introductions come to this process.
func (n *Node) accept() {
	if n.known.accept() {
		n.tell(node.Input{Op: node.Accept})
		if n.beacon != nil {
			n.beaconing.Do(n.keepBeacon)
		}
	}
}

// Dial connects to a service of a peer. It returns as soon as the connection is
// encrypted and the peer's identity proved, usually still over the relay; a
// refusal comes with the first Read, as a *[RefusedError]. Dial waits for the
// server until ctx ends.
func (n *Node) Dial(ctx context.Context, id peer.ID, service string) (*Conn, error) {
	c, err := reach(ctx, n, id, func(ctx context.Context, at netip.AddrPort) (*session.Conn, error) {
		if err := n.awake(ctx, id, at); err != nil {
			return nil, err
		}
		return n.sessions.Dial(ctx, id, at, service)
	})
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, node: n}, nil
}

// DialPacket opens a flow of unreliable datagrams to a service of a peer.
func (n *Node) DialPacket(ctx context.Context, id peer.ID, service string) (net.Conn, error) {
	return reach(ctx, n, id, func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		if err := n.awake(ctx, id, at); err != nil {
			return nil, err
		}
		return n.sessions.DialPacket(ctx, id, at, service)
	})
}

// staleAfter is how long a session without a direct route, whose probes would tell,
// may be silent and still be trusted.
const staleAfter = 5 * time.Second

// awake makes sure that a session which was silent for long still has a peer at its
// other end, before something new is begun on it: the peer may be gone, and QUIC
// would wait for ten minutes.
func (n *Node) awake(ctx context.Context, id peer.ID, at netip.AddrPort) error {
	if n.sessions.Count(at.Addr()) == 0 || n.known.route(at.Addr()).Direct() ||
		time.Since(n.path.Heard(at.Addr())) < staleAfter {
		return nil
	}
	_, err := n.sessions.Ping(ctx, id, at)
	return err
}

// Ping asks a peer for an answer, over the route that data would take. Every
// listening node answers.
func (n *Node) Ping(ctx context.Context, id peer.ID) (Pong, error) {
	return reach(ctx, n, id, func(ctx context.Context, at netip.AddrPort) (Pong, error) {
		rtt, err := n.sessions.Ping(ctx, id, at)
		return Pong{RTT: rtt, Route: n.known.route(at.Addr())}, err
	})
}

// Events yields what happens from now on, the first call also what has happened
// since Start, until ctx ends or the node is closed. A reader that is far behind
// misses some.
func (n *Node) Events(ctx context.Context) iter.Seq[Event] { return n.events.subscribe(ctx, n.ctx) }

// Close ends the node at once: what was written and not yet read by the peer may
// be lost. [Node.Shutdown] waits.
func (n *Node) Close() error {
	_ = n.sessions.Close() // first: its goodbyes need the sockets
	n.cancel(ErrClosed)
	n.wg.Wait()
	n.path.Close()
	return nil
}

// Shutdown waits until the peers have read what was written to them, or ctx
// ends, and then closes the node.
func (n *Node) Shutdown(ctx context.Context) error {
	err := n.sessions.Shutdown(ctx)
	return errors.Join(err, n.Close())
}

func (n *Node) closeSockets() {
	for _, p := range n.ports {
		_ = p.Close()
	}
	for _, s := range n.sockets {
		_ = s.Close()
	}
	for _, s := range n.icmp {
		_ = s.Close()
	}
	if n.beacon != nil {
		_ = n.beacon.Close()
	}
}
