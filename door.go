package bodkin

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/punch"
)

const (
	// doorTime is how long a connection that came in may take to carry a probe: a peer
	// sends it at once.
	doorTime = 3 * time.Second
	// doorPlaces bounds the connections that nobody has claimed, and doorPlacesEach
	// those from one address, or one IPv6 network. Where there are more, the oldest of
	// the source that has most goes.
	doorPlaces     = 64
	doorPlacesEach = 8
	// doorPause is how long no connection is taken when the system has no room for one.
	doorPause = 100 * time.Millisecond
)

// door is where connections wait that came to our TCP ports, until a probe shows whose
// they are. A stranger's belong to nobody.
type door struct {
	mu      sync.Mutex
	waiting []caller // the oldest first
}

type caller struct {
	source netip.Prefix
	conn   net.Conn
}

// enter lets a connection wait, and sends away who has to go for it.
func (d *door) enter(c net.Conn, from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	source := sourceOf(from)
	switch {
	case d.count(source) >= doorPlacesEach:
		d.evict(source)
	case len(d.waiting) >= doorPlaces:
		d.evict(d.crowd())
	}
	d.waiting = append(d.waiting, caller{source, c})
}

// leave takes a connection from those that wait, and reports whether it was there.
func (d *door) leave(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.waiting)
	d.waiting = slices.DeleteFunc(d.waiting, func(g caller) bool { return g.conn == c })
	return len(d.waiting) < before
}

func (d *door) count(source netip.Prefix) (n int) {
	for _, g := range d.waiting {
		if g.source == source {
			n++
		}
	}
	return n
}

// crowd is the source that has most connections waiting; of several, the one that
// waits longest.
func (d *door) crowd() (source netip.Prefix) {
	most := 0
	for _, g := range d.waiting {
		if n := d.count(g.source); n > most {
			source, most = g.source, n
		}
	}
	return source
}

// evict closes the oldest connection of a source.
func (d *door) evict(source netip.Prefix) {
	i := slices.IndexFunc(d.waiting, func(g caller) bool { return g.source == source })
	abort(d.waiting[i].conn)
	d.waiting = slices.Delete(d.waiting, i, i+1)
}

// sourceOf is who a connection is counted for.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// answer takes the connections that come to a port, until it is closed.
func (n *Node) answer(port tcpPort) {
	for {
		c, err := port.Accept()
		switch {
		case err == nil:
			at, _ := c.RemoteAddr().(*net.TCPAddr)
			from := unmapped(at.AddrPort())
			n.door.enter(c, from.Addr())
			n.wg.Go(func() { n.welcome(c, port.local, from) })
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, or the other side went away
			select {
			case <-time.After(doorPause):
			case <-n.ctx.Done():
				return
			}
		}
	}
}

// welcome reads what a connection that came in carries. The first packet must be a
// probe, and the loop must know whose.
func (n *Node) welcome(c net.Conn, port punch.Local, from netip.AddrPort) {
	given := false // to somebody else
	defer func() {
		n.door.leave(c)
		if !given {
			_ = c.Close()
		}
	}()
	s := sock.NewStream(c, from, packets, nil)
	patience := time.Now().Add(doorTime)
	var local punch.Local
	var deliver func([]byte) bool
	_ = s.Read(func(b []byte) bool {
		if deliver != nil {
			given = !deliver(b)
			return !given
		}
		if _, err := wire.ParseProbe(b); err != nil {
			return false
		}
		a := arrival{endpoints: endpoints{port, from}, conn: c, stream: s, first: bytes.Clone(b), taken: make(chan punch.Local, 1)}
		select {
		case n.arrivals <- a:
		case <-n.ctx.Done():
			return false
		}
		select {
		case local = <-a.taken:
		case <-n.ctx.Done():
		}
		patience, deliver = time.Time{}, n.deliver(local, s)
		return local != 0
	}, func() time.Time { return patience })
	if local != 0 {
		n.tell(node.Input{Op: node.PeerGone, Local: local, From: from, Why: punch.Ended})
	}
}

// accepted gives a connection that came in to the core, which knows whether the probe
// that it carries is of a peer that it expects.
func (l *loop) accepted(a arrival) {
	n := l.node
	if !n.door.leave(a.conn) || !n.core.Expects(a.first) {
		a.taken <- 0 // it had to go, or is a stranger's
		return
	}
	local := n.core.NewLocal(punch.TCP)
	sock.TuneTCP(a.conn)
	l.conns[local] = &connection{endpoints: a.endpoints, cancel: func() {}, conn: a.conn, stream: a.stream}
	n.path.SetSocket(local, a.stream)
	l.step(node.Input{Op: node.Accepted, By: path.Key{Local: local, To: a.to}, Data: a.first})
	if l.conns[local] == nil {
		local = 0
	}
	a.taken <- local
}
