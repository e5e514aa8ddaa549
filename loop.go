package bodkin

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/sock"
	"bodkin/punch"
)

const (
	// networkEvery is how often the interfaces are looked at for a change, where
	// the system does not tell, and clocksEvery how often the clocks for a sleep.
	networkEvery = 5 * time.Second
	clocksEvery  = time.Second
	// settleTime is how long a network that changes is left to it: changes come
	// many at a time.
	settleTime = 100 * time.Millisecond
	// slept is how much longer than it should take there may be between two looks at
	// the clocks, before the machine counts as having been asleep: mappings outlive
	// that.
	slept = 10 * time.Second
)

// loop steps the core: the one goroutine that owns the node's state. It ends
// with the node, after a goodbye to the server.
func (n *Node) loop() {
	l := loop{node: n, timer: time.NewTimer(time.Hour), extra: make(map[punch.Local]*sock.Socket), conns: make(map[punch.Local]*connection), connects: make(map[endpoints]chan struct{})}
	defer l.end()
	l.network()
	if n.cfg.Serverless == nil {
		l.resolve()
	}
	look, clocks := time.NewTicker(networkEvery), time.NewTicker(clocksEvery)
	defer look.Stop()
	defer clocks.Stop()
	changes, settled := n.changes(), (<-chan time.Time)(nil)
	defer func() {
		for changes != nil { // nothing outlives Close
			if _, ok := <-changes; !ok {
				return
			}
		}
	}()
	for {
		select {
		case <-n.ctx.Done():
			return
		case in := <-n.inputs:
			if in.Op == node.PeerGone {
				l.disconnect(in.Local)
			}
			l.step(in)
		case a := <-n.arrivals:
			l.arrived(a)
		case f := <-n.calls:
			f(&l)
		case <-l.timer.C:
			l.step(node.Input{Op: node.Tick})
		case <-look.C:
			l.look(false)
		case <-clocks.C:
			l.clocks()
		case _, ok := <-changes:
			if settled == nil {
				settled = time.After(settleTime)
			}
			if !ok {
				changes = nil
			}
		case <-settled:
			settled = nil
			l.look(true)
		}
	}
}

// changes says when the network changes, if it can tell.
func (n *Node) changes() <-chan struct{} {
	w, ok := n.cfg.Network.(sock.Watcher)
	if !ok {
		return nil
	}
	c, err := w.Changes(n.ctx)
	if err != nil {
		n.cfg.Logger.Debug("interfaces are looked at now and then", "error", err)
		return nil
	}
	return c
}

// look looks at the interfaces. Where something is known to have changed and no
// address did, a route may lead elsewhere now.
func (l *loop) look(changed bool) {
	if !l.network() && changed {
		l.step(node.Input{Op: node.Doubt})
	}
}

// clocks looks whether the machine was asleep: whoever forgot us meanwhile, NATs, the
// server and peers, is to know us again before anybody waits for it.
func (l *loop) clocks() {
	now := time.Now()
	wall, awake := now.Round(0).Sub(l.looked.Round(0)), now.Sub(l.looked)
	if !l.looked.IsZero() && asleep(wall, awake, clocksEvery) {
		l.node.cfg.Logger.Info("woke up", "after", max(wall, awake).Round(time.Second))
		l.look(true)
	}
	l.looked = now
}

// asleep reports whether so much time by the wall clock, and by the one that never
// goes back, is more than should have passed. That one stands still while a machine
// sleeps, and on some systems goes on; both go on where a process was stopped. A clock
// that is set forward passes for a sleep, which costs some packets.
func asleep(wall, awake, should time.Duration) bool { return max(wall, awake)-should >= slept }

type loop struct {
	looked   time.Time // when the clocks last were
	node     *Node
	timer    *time.Timer
	out      []node.Action
	prefixes []netip.Prefix
	started  bool
	extra    map[punch.Local]*sock.Socket // those that the core asked for
	conns    map[punch.Local]*connection  // of TCP
	connects map[endpoints]chan struct{}  // under way; closed when they are over
	queue    []node.Input                 // what came of an action
	// noOpeners says that the log tells already that there are none.
	noOpeners bool
}

func (l *loop) step(in node.Input) {
	var next time.Time
	l.out, next = l.node.core.Step(time.Now(), in, l.out[:0])
	for _, a := range l.out {
		l.do(a)
	}
	clear(l.out)
	if len(l.queue) > 0 {
		in := l.queue[0]
		l.queue = l.queue[1:]
		l.step(in)
		return
	}
	if next.IsZero() {
		l.timer.Stop()
		return
	}
	l.timer.Reset(max(time.Until(next), 0))
}

// do does what the core asks for.
func (l *loop) do(a node.Action) {
	n := l.node
	switch a.Op {
	case node.Send:
		l.sent(a, n.path.SendControl(a.By.Local, a.By.To, a.TTL, a.Data))
	case node.Bind:
		l.bind(a.By)
	case node.Unbind:
		l.unbind(a.By.Local)
	case node.Connect:
		if a.ICMP {
			l.pingServer(a.By)
		} else {
			l.connect(a)
		}
	case node.Disconnect:
		n.streams.disconnect(a.By.Local)
		n.leaveServer(a.By.Local)
	case node.AskTCP:
		n.wg.Go(func() { n.askTCP(a) })
	case node.Greet:
		n.greet(a)
	case node.ConnectPeer:
		l.connectPeer(a)
	case node.Resolve:
		l.resolve()
	case node.Servers:
		n.path.SetServers(a.Servers...)
	case node.AddPeer:
		n.known.add(a.Overlay, a.ID)
		n.path.AddPeer(a.Overlay)
	case node.Alias:
		n.known.alias(a.Overlay, a.Of)
		n.path.Alias(a.Overlay, a.Of)
	case node.RemovePeer:
		n.known.remove(a.Overlay)
		n.path.RemovePeer(a.Overlay)
	case node.Hear:
		n.path.Hear(a.Overlay, a.By)
	case node.Unhear:
		n.path.Unhear(a.By)
	case node.Publish:
		afresh := n.path.Publish(a.Overlay, a.Routes)
		for _, r := range a.Routes {
			if s := l.extra[r.Local]; s != nil {
				s.Grow()
			}
		}
		n.known.routes(a.Overlay, a.Routes)
		if len(a.Routes) > 0 {
			n.sessions.Prefer(a.Overlay, a.Routes[0].Transport())
		}
		if afresh {
			n.sessions.Afresh(a.Overlay)
		}
	case node.Revive:
		if n.path.Revive(a.Overlay, a.Silent) {
			n.sessions.Afresh(a.Overlay)
		}
	case node.Happened:
		n.happened(a)
	case node.Registered:
		if n.known.registered(a) {
			n.emit(Event{Kind: EventRegistered, Endpoint: seenAt(a.Registered), Via: string(a.Via)})
		}
	case node.RegisterFailed:
		n.known.unregistered(&ServerError{Server: n.url.String(), Err: a.Err})
		n.cfg.Logger.Warn("not registered", "server", n.url.String(), "error", a.Err)
	case node.ServerLost:
		n.known.unregistered(&ServerError{Server: n.url.String(), Err: errors.New("it no longer answers; trying again")})
		n.emit(Event{Kind: EventServerLost})
	case node.Measured:
		n.known.measured(*a.Report)
		n.emit(Event{Kind: EventNAT})
	case node.Invited, node.Paired, node.NotPaired, node.PairingOver:
		n.pairings.happened(a)
	case node.Displaced:
		n.known.displace()
		n.sessions.EndListeners()
		n.emit(Event{Kind: EventDisplaced})
	default: // inputs
	}
}

// bind opens a socket that the core asked for, and reads it.
func (l *loop) bind(k path.Key) {
	n, network, bound := l.node, "udp4", netip.AddrPort{}
	if k.To.Addr().Is6() {
		network = "udp6"
	}
	s, err := sock.OpenSmall(n.ctx, n.cfg.Network, network, k.To)
	if err != nil {
		n.cfg.Logger.Debug("no more sockets", "error", err)
	} else {
		l.extra[k.Local], bound = s, s.Local()
		n.path.SetSocket(k.Local, s)
		n.read(k.Local, s)
	}
	l.queue = append(l.queue, node.Input{Op: node.Bound, Local: k.Local, From: bound})
}

func (l *loop) unbind(local punch.Local) {
	l.disconnect(local)
	if s := l.extra[local]; s != nil {
		l.node.path.SetSocket(local, nil)
		_ = s.Close()
		delete(l.extra, local)
	}
}

// sent takes note of a packet that did not leave. That a system cannot send
// openers is said once: everything works without, only towards fewer NATs.
func (l *loop) sent(a node.Action, err error) {
	logger := l.node.cfg.Logger
	switch {
	case err == nil, errors.Is(err, net.ErrClosed):
	case a.TTL == 0 || !errors.Is(err, errors.ErrUnsupported):
		logger.Debug("packet not sent", "to", a.By.To, "error", err)
	case !l.noOpeners:
		l.noOpeners = true
		logger.Warn("openers are left out: this system cannot set the TTL of a single packet; "+
			"peers whose NAT keeps early packets may stay on the relay", "to", a.By.To)
	}
}

// happened passes on what happened to a peer.
func (n *Node) happened(a node.Action) {
	h := a.Event
	e := Event{Peer: a.ID, Reason: h.Reason}
	switch h.Kind {
	case path.WasIntroduced:
		e.Kind = EventIntroduced
		e.Route = Route{Endpoint: firstOf(h.Endpoints)}
	case path.RouteUp:
		e.Kind, e.Route = EventRouteConfirmed, routeOf(h.Route)
		if !h.Route.Direct() {
			return // a relay is there or not; it is not confirmed
		}
	case path.RouteDown:
		e.Kind, e.Route = EventRouteLost, routeOf(h.Route)
	case path.Switched:
		e.Kind, e.Route = EventSwitched, routeOf(h.Route)
	case path.Failed:
		e.Kind, e.Reason = EventFailed, h.Err.Error()
		if !n.known.failed(a.Overlay, h.Err) {
			return // it is asked for again and again
		}
	case path.Restarted:
		n.sessions.CloseSession(a.Overlay)
		return
	case path.AttemptEnded:
		e.Kind, e.Probes, e.Tactics = EventAttemptEnded, h.Report.Sent, tacticsOf(h.Report)
	case path.Accounted:
		n.known.accounted(a.Overlay, h.Account)
		return
	}
	e.Time = time.Now()
	n.known.happened(a.Overlay, e)
	n.emit(e)
}

func (n *Node) emit(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	n.cfg.Logger.Info(string(e.Kind), "peer", e.Peer.Short(), "route", e.Route.Transport, "endpoint", e.Route.Endpoint, "reason", e.Reason)
	n.events.publish(e)
}

func routeOf(r path.Route) Route {
	out := Route{Transport: r.Transport().String(), Endpoint: r.To, RTT: r.RTT, Loss: r.Loss}
	if r.Kind != 0 {
		out.Kind = r.Kind.String()
	}
	return out
}

func firstOf(endpoints []netip.AddrPort) netip.AddrPort {
	if len(endpoints) == 0 {
		return netip.AddrPort{}
	}
	return endpoints[0]
}

// network tells the core about sockets and addresses, when they changed, and reports
// whether they did.
func (l *loop) network() bool {
	prefixes, err := l.node.cfg.Network.Prefixes()
	if err != nil {
		l.node.cfg.Logger.Warn("interfaces not readable", "error", err)
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	if l.started && slices.Equal(prefixes, l.prefixes) {
		return false
	}
	l.started, l.prefixes = true, prefixes
	var sockets []path.LocalSocket
	for i, s := range l.node.sockets {
		sockets = append(sockets, path.LocalSocket{Local: punch.Local(i + 1), Bound: s.Local()})
	}
	var ports []path.LocalSocket
	for _, p := range l.node.ports {
		ports = append(ports, path.LocalSocket{Local: p.local, Bound: p.bound})
	}
	l.step(node.Input{Op: node.Network, Sockets: sockets, ICMP: l.node.localICMP(), Ports: ports, Links: prefixes})
	return true
}

// resolveAgain is how long a failed look-up waits.
const resolveAgain = 2 * time.Second

// resolve looks up the server's name beside the loop, until it succeeds.
func (l *loop) resolve() {
	n := l.node
	if !n.resolving.CompareAndSwap(false, true) {
		return
	}
	n.wg.Go(func() {
		defer n.resolving.Store(false)
		for n.ctx.Err() == nil {
			addrs, err := sock.Lookup(n.ctx, n.cfg.Network, n.url.Host)
			if streams := n.streamEndpoints(addrs); err == nil || len(streams) > 0 {
				in := node.Input{Op: node.Resolved, Streams: streams}
				if n.cfg.ServerVia == "" || n.cfg.ServerVia == ViaUDP {
					in.Servers = withPort(addrs, n.url.Port)
				}
				n.tell(in)
				n.mapPorts(addrs)
				return
			}
			n.known.unregistered(&ServerError{Server: n.url.String(), Err: err})
			select {
			case <-time.After(resolveAgain):
			case <-n.ctx.Done():
			}
		}
	})
}

func withPort(addrs []netip.Addr, port uint16) (out []netip.AddrPort) {
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a.Unmap(), port))
	}
	return out
}

// end says goodbye to the server and closes the sockets, which ends the readers.
func (l *loop) end() {
	l.timer.Stop()
	l.step(node.Input{Op: node.Close})
	l.timer.Stop()
	for local := range l.extra {
		l.unbind(local)
	}
	l.node.streams.close()
	for _, c := range l.conns {
		if c.cancel(); c.stream != nil {
			_ = c.stream.Close() // a goodbye may wait
		}
	}
	l.node.closeSockets()
}

// noFamily reports whether all errors say that the system lacks the family.
func noFamily(errs []error) bool {
	return !slices.ContainsFunc(errs, func(err error) bool { return !sock.NoFamily(err) })
}
