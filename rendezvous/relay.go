package rendezvous

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// pair is a relay channel between two introduced nodes. Each side has its own
// number for it. It lives while both registrations do, however idle.
type pair struct {
	asker, target *registration
	asked, served wire.Channel // the asker's number, the target's number
	fromA, fromB  bucket
	used          stamp // when it last carried anything
}

// channel is the number by which g knows the pair.
func (p *pair) channel(g *registration) wire.Channel {
	if g == p.asker {
		return p.asked
	}
	return p.served
}

func (p *pair) other(g *registration) (*registration, wire.Channel) {
	if g == p.asker {
		return p.target, p.served
	}
	return p.asker, p.asked
}

// open makes the relay channel of an introduction. An asker that names a channel
// which it has to the same target already keeps it. There is one for each asker
// and target: any other between them, or of that number, is closed.
func (r *Registry) open(asker, target *registration, c wire.Channel) *pair {
	if asker.extra != nil {
		for number, p := range asker.extra.channels {
			same := p.asker == asker && p.target == target
			if same && number == c {
				return p
			}
			if same || number == c {
				r.closeChannel(asker, number)
			}
		}
	}
	served, ok := r.freeChannel(target)
	if !ok {
		return nil
	}
	p := &pair{asker: asker, target: target, asked: c, served: served, used: r.stamp}
	asker.bind(c, p)
	target.bind(served, p)
	r.pairs++
	return p
}

// extra is what most nodes do not have: relay channels, and connections.
type extra struct {
	channels map[wire.Channel]*pair
	next     wire.Channel // where the search for a free one of the server's begins
	sent     bucket       // relayed

	streams [ways - udpWays]leg // connections and ICMP, each over IPv4 and IPv6
}

// extras makes room for what most do not have.
func (g *registration) extras() *extra {
	if g.extra == nil {
		g.extra = new(extra)
	}
	return g.extra
}

// channel is the pair that a node calls c.
func (g *registration) channel(c wire.Channel) *pair {
	if g.extra == nil {
		return nil
	}
	return g.extra.channels[c]
}

func (g *registration) bind(c wire.Channel, p *pair) {
	e := g.extras()
	if e.channels == nil {
		e.channels = make(map[wire.Channel]*pair)
	}
	e.channels[c] = p
}

// idleChannel is how long a channel must have carried nothing before it makes
// room for another one.
const idleChannel = time.Minute

// freeChannel finds a number for a target. It goes round, so that a number rests
// before it means another peer. Where none is free, the channel that was idle
// longest makes room.
func (r *Registry) freeChannel(g *registration) (wire.Channel, bool) {
	var idlest *pair
	for range wire.ChannelsPerHalf {
		c := wire.FirstServedChannel + g.extras().next%wire.ChannelsPerHalf
		g.extra.next++
		p := g.extra.channels[c]
		if p == nil {
			return c, true
		}
		if idlest == nil || r.stamp.since(p.used) > r.stamp.since(idlest.used) {
			idlest = p
		}
	}
	if r.stamp.since(idlest.used) < idleChannel {
		return 0, false
	}
	r.closeChannel(g, idlest.served)
	r.indicate(g, wire.CloseChannel, idlest.served)
	return idlest.served, true
}

// closeChannel forgets a channel and tells the other side, once: if that is lost,
// its next packet is answered with a ChannelError.
func (r *Registry) closeChannel(g *registration, c wire.Channel) {
	p := g.channel(c)
	if p == nil {
		return
	}
	r.pairs--
	delete(g.extra.channels, c)
	other, oc := p.other(g)
	delete(other.extra.channels, oc)
	r.indicate(other, wire.CloseChannel, oc)
}

func (r *Registry) closeChannels(g *registration) {
	if g.extra == nil {
		return
	}
	for _, c := range slices.Sorted(maps.Keys(g.extra.channels)) {
		r.closeChannel(g, c)
	}
}

// indicate tells a node something about a channel.
func (r *Registry) indicate(g *registration, method stun.Method, c wire.Channel) {
	var content wire.Attrs
	content.AddChannel(c)
	var id wire.TransactionID
	r.draw(id[:])
	r.reply(g, stun.NewType(method, stun.ClassIndication), id, 0, content)
}

const (
	// channelErrorSize is the size of a ChannelError, strangerSize that of one
	// without seal: they answer only what is as long.
	channelErrorSize = 20 + 12 + 12 + 4 + 8 + 16
	strangerSize     = 20
)

// relay passes ChannelData on, in the memory that it came in.
func (r *Registry) relay(local int, from netip.AddrPort, b []byte) {
	c, data, ok := wire.ParseChannelData(b)
	if !ok {
		r.stats.Malformed++
		return
	}
	g := r.source(local, from)
	if g == nil {
		r.stranger(local, from, b)
		return
	}
	p := g.channel(c)
	if p == nil {
		r.stats.Unknown++
		if len(b) >= channelErrorSize && r.strays.take(r.stamp, 1, plainErrors, plainErrors) {
			r.indicate(g, wire.ChannelError, c)
		}
		return
	}
	if !r.affordable(g, p, len(data)) {
		r.stats.Limited++
		return
	}
	r.stats.RelayedPackets++
	r.stats.RelayedBytes += uint64(len(data))
	p.used = r.stamp
	to, oc := p.other(g)
	wire.PutChannelHeader(b, oc, len(data))
	if l := to.leg(to.primary); l.place.valid() {
		r.send(int(l.local), l.place.endpoint(), b[:wire.ChannelOverhead+len(data)])
	}
}

// stranger answers data from a source that no node has: one whose NAT gave it
// another port, or whose server was restarted, then asks at once how it stands.
func (r *Registry) stranger(local int, from netip.AddrPort, b []byte) {
	r.stats.Unknown++
	if len(b) >= strangerSize && r.errors.take(r.stamp, 1, plainErrors, plainErrors) {
		var id wire.TransactionID
		r.draw(id[:])
		r.send(local, from, wire.AppendStranger(nil, id))
	}
}

// relayBurst is how long a sender may be over its rate: 50 ms of it, and room
// for what QUIC sends at once.
func relayBurst(rate float64) float64 { return max(rate/20, 64<<10) }

// affordable takes a packet from the limits of pair (each direction its own),
// node and server, or from none of them.
func (r *Registry) affordable(g *registration, p *pair, n int) bool {
	own := &p.fromB
	if g == p.asker {
		own = &p.fromA
	}
	buckets := [...]struct {
		*bucket
		bits int64
	}{{own, r.limits.RelayPerPair}, {&g.extra.sent, r.limits.RelayPerNode}, {&r.relayed, r.limits.RelayPerServer}}
	for i, b := range buckets {
		rate := float64(b.bits) / 8
		if !b.take(r.stamp, float64(n), rate, relayBurst(rate)) {
			for _, paid := range buckets[:i] {
				paid.used -= min(paid.used, float32(n))
			}
			return false
		}
	}
	return true
}
