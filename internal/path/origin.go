package path

import (
	"net"
	"sync"
)

// A peer that dialled moves its connection from class to class: it tries the new path
// with a connection ID that was not used before (RFC 9000 §9.5), and goes on with it.
// In between, and in an emergency, its packets come by whatever route there is, still
// of the old path. QUIC must not take that for a move: it would follow by itself, and
// then leave the peer's own attempt without an answer, for it answers only what tries
// another path than the one in use. So a packet is of the path that its connection ID
// began on, and what tries a path always tries a new one.

// origin is the path that a connection ID began on.
type origin struct {
	id   uint64
	from *net.UDPAddr
}

// maxOrigins bounds the connection IDs of a peer that are remembered: of each
// connection two or three are in use.
const maxOrigins = 32

// origins are the paths of a peer's connections to us.
type origins struct {
	mu     sync.Mutex
	known  []*origin // the oldest first
	latest *net.UDPAddr
}

func (s *Socket) connID(packet []byte) uint64 {
	if s.cfg.ConnID == nil {
		return 0
	}
	id, _ := s.cfg.ConnID(packet)
	return id
}

// origin is what QUIC, which accepts, is to see as the address of a packet.
func (s *Socket) origin(l *link, packet []byte) *net.UDPAddr {
	if s.cfg.ConnID == nil {
		return l.from
	}
	id, probes := s.cfg.ConnID(packet)
	if o := l.known.Load(); o != nil && o.id == id {
		return o.from
	}
	x := &l.peer.origins
	x.mu.Lock()
	defer x.mu.Unlock()
	if id == 0 {
		x.latest = l.from // a connection begins, and goes on where it does
		return l.from
	}
	for _, o := range x.known {
		if o.id == id {
			if !probes {
				x.latest = o.from // the path is in use
				l.known.Store(o)
			}
			return o.from
		}
	}
	// QUIC takes new connection IDs within a path too, now and then.
	o := &origin{id, x.latest}
	switch {
	case probes:
		o.from = l.peer.at(l.class, l.peer.shown.Add(1))
	case o.from == nil:
		o.from = l.from
	}
	if len(x.known) == maxOrigins {
		x.known = append(x.known[:0], x.known[1:]...)
	}
	x.known = append(x.known, o)
	return o.from
}

// renew gives all paths the number of the epoch.
func (x *origins) renew(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, o := range x.known {
		x.known[i] = &origin{o.id, e.at(classOf(o.from.Port), e.epoch)}
	}
	if x.latest != nil {
		x.latest = e.at(classOf(x.latest.Port), e.epoch)
	}
}
