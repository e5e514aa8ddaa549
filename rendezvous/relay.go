package rendezvous

import (
	"net/netip"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// pair is a relay channel between two introduced nodes. Each side has its own
// number for it. It lives while both registrations do, however idle.
type pair struct {
	asker, target *registration
	asked, served wire.Channel // the asker's number, the target's number
	fromA, fromB  bucket
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
// which it has to the same target already keeps it; to another one, the old
// channel is closed.
func (r *Registry) open(asker, target *registration, c wire.Channel) *pair {
	if p := asker.channels[c]; p != nil {
		if p.asker == asker && p.target == target {
			return p
		}
		r.closeChannel(asker, c)
	}
	served, ok := target.freeChannel()
	if !ok {
		return nil
	}
	p := &pair{asker: asker, target: target, asked: c, served: served}
	asker.bind(c, p)
	target.bind(served, p)
	r.pairs++
	return p
}

func (g *registration) bind(c wire.Channel, p *pair) {
	if g.channels == nil {
		g.channels = make(map[wire.Channel]*pair)
	}
	g.channels[c] = p
}

func (g *registration) freeChannel() (wire.Channel, bool) {
	for range wire.ChannelsPerHalf {
		c := wire.FirstServedChannel + g.next%wire.ChannelsPerHalf
		g.next++
		if g.channels[c] == nil {
			return c, true
		}
	}
	return 0, false
}

// closeChannel forgets a channel and tells the other side, once: if that is lost,
// its next packet is answered with a ChannelError.
func (r *Registry) closeChannel(g *registration, c wire.Channel) {
	p := g.channels[c]
	if p == nil {
		return
	}
	r.pairs--
	delete(g.channels, c)
	other, oc := p.other(g)
	delete(other.channels, oc)
	if other.gone {
		return
	}
	r.indicate(other, wire.CloseChannel, oc)
}

func (r *Registry) closeChannels(g *registration) {
	for c := range g.channels {
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

// channelErrorSize is the size of a ChannelError: it answers only what is longer.
const channelErrorSize = 20 + 12 + 12 + 4 + 8 + 16

// relay passes ChannelData on, in the memory that it came in.
func (r *Registry) relay(local int, from netip.AddrPort, b []byte) {
	c, data, ok := wire.ParseChannelData(b)
	if !ok {
		r.stats.Malformed++
		return
	}
	g := r.bySource[from]
	if g == nil || g.legs[family(from)].local != local {
		r.stats.Unknown++
		return
	}
	p := g.channels[c]
	if p == nil {
		r.stats.Unknown++
		if len(b) >= channelErrorSize && r.errors.take(r.now, 1, plainErrors, plainErrors) {
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
	to, oc := p.other(g)
	wire.PutChannelHeader(b, oc, len(data))
	l := to.legs[to.primary]
	r.send(l.local, l.addr, b[:wire.ChannelOverhead+len(data)])
}

// relayBurst is how long a sender may be over its rate: 50 ms of it, and room
// for what QUIC sends at once.
func relayBurst(rate float64) float64 { return max(rate/20, 64<<10) }

// affordable takes a packet from the limits of pair (each direction its own),
// node and server.
func (r *Registry) affordable(g *registration, p *pair, n int) bool {
	b := &p.fromB
	if g == p.asker {
		b = &p.fromA
	}
	take := func(b *bucket, bits int64) bool {
		rate := float64(bits) / 8
		return b.take(r.now, float64(n), rate, relayBurst(rate))
	}
	return take(b, r.limits.RelayPerPair) && take(&g.relayed, r.limits.RelayPerNode) && take(&r.relayed, r.limits.RelayPerServer)
}
