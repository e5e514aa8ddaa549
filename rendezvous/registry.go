package rendezvous

import (
	"crypto/rand"
	"io"
	"net/netip"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// Limits bound what nodes can make a server do. A zero field is its default; a
// rate of -1 has no limit.
type Limits struct {
	Registrations  int           // on the whole server; default 100,000
	Instances      int           // of one peer ID; default 16
	Introductions  float64       // that one node may ask for, a second; default 10
	Introduced     float64       // to one node, a second; default 20
	RelayPerPair   int64         // bit/s between two peers; default 50 Mbit/s
	RelayPerNode   int64         // bit/s from one node; default 100 Mbit/s
	RelayPerServer int64         // bit/s in all; default none
	Lifetime       time.Duration // of a registration without refresh; default 60 s
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Registrations, 100_000)
	set(&l.Instances, 16)
	if l.Introductions == 0 {
		l.Introductions = 10
	}
	if l.Introduced == 0 {
		l.Introduced = 20
	}
	if l.RelayPerPair == 0 {
		l.RelayPerPair = 50_000_000
	}
	if l.RelayPerNode == 0 {
		l.RelayPerNode = 100_000_000
	}
	if l.Lifetime == 0 {
		l.Lifetime = time.Minute
	}
	return l
}

// Stats counts what a server did, and what it did not believe.
type Stats struct {
	Registrations  int    `json:"registrations"` // at the moment
	Channels       int    `json:"channels"`      // at the moment
	Registered     uint64 `json:"registered"`
	Introductions  uint64 `json:"introductions"`
	Bindings       uint64 `json:"bindings"`
	RelayedPackets uint64 `json:"relayed_packets"`
	RelayedBytes   uint64 `json:"relayed_bytes"`

	Malformed uint64 `json:"malformed"` // not a message
	Forged    uint64 `json:"forged"`    // not authenticated
	Replayed  uint64 `json:"replayed"`
	Unproved  uint64 `json:"unproved"` // sources sent a NONCE
	Unknown   uint64 `json:"unknown"`  // registrations or channels
	Refused   uint64 `json:"refused"`  // introductions not allowed, or offline
	Limited   uint64 `json:"limited"`
}

// Outgoing is a packet to send from one of the server's sockets. Its Data may
// share memory with the packet that was taken in.
type Outgoing struct {
	Local int
	To    netip.AddrPort
	Data  []byte
}

// Registry is the server's state: packets and the time in, packets out. It has
// no I/O, clock or goroutine, and is not safe for concurrent use.
type Registry struct {
	key    peer.Key
	limits Limits
	rand   io.Reader
	nonces nonces

	byHandle      map[wire.Handle]*registration
	byNode        map[nodeKey]*registration
	bySource      map[netip.AddrPort]*registration
	byID          map[peer.ID]*identity
	introductions map[introductionKey]*introduction
	waiting       map[wire.TransactionID]*introduction // for the target's answer
	pairs         int
	swept         time.Time

	prefixes prefixLimit
	errors   bucket // unauthenticated errors, in all
	relayed  bucket
	stats    Stats

	now time.Time // of the Step under way
	out []Outgoing
}

type nodeKey struct {
	id       peer.ID
	instance uint64
}

// identity is what belongs to a peer ID rather than to one of its processes.
type identity struct {
	instances int
	accepting *registration
}

// sweepEvery is how often what has expired is forgotten.
const sweepEvery = 5 * time.Second

// NewRegistry makes the state of a server with that key. Randomness comes from
// random, or from crypto/rand if it is nil.
func NewRegistry(key peer.Key, limits Limits, random io.Reader) *Registry {
	if random == nil {
		random = rand.Reader
	}
	r := &Registry{
		key: key, limits: limits.withDefaults(), rand: random,
		byHandle:      make(map[wire.Handle]*registration),
		byNode:        make(map[nodeKey]*registration),
		bySource:      make(map[netip.AddrPort]*registration),
		byID:          make(map[peer.ID]*identity),
		introductions: make(map[introductionKey]*introduction),
		waiting:       make(map[wire.TransactionID]*introduction),
	}
	r.draw(r.nonces.key[:])
	return r
}

func (r *Registry) draw(b []byte) {
	if _, err := io.ReadFull(r.rand, b); err != nil {
		panic("rendezvous: no randomness: " + err.Error())
	}
}

// Stats returns the counts.
func (r *Registry) Stats() Stats {
	s := r.stats
	s.Registrations, s.Channels = len(r.byHandle), r.pairs
	return s
}

// Step takes a packet that came to the socket local, and appends what to send.
func (r *Registry) Step(now time.Time, local int, from netip.AddrPort, b []byte, out []Outgoing) []Outgoing {
	r.now, r.out = now, out
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if len(b) > 0 && b[0]&0xF0 == 0x40 {
		r.relay(local, from, b)
	} else if m, err := wire.Decode(b); err != nil {
		r.stats.Malformed++
	} else {
		r.message(local, from, m)
	}
	out, r.out = r.out, nil
	return out
}

// Tick repeats what was not acknowledged and forgets what has expired. It wants
// to be called again at next.
func (r *Registry) Tick(now time.Time, out []Outgoing) (_ []Outgoing, next time.Time) {
	r.now, r.out = now, out
	next = r.retransmit()
	if now.Sub(r.swept) >= sweepEvery {
		r.sweep()
		r.swept = now
	}
	if s := r.swept.Add(sweepEvery); next.IsZero() || s.Before(next) {
		next = s
	}
	out, r.out = r.out, nil
	return out, next
}

func (r *Registry) send(local int, to netip.AddrPort, b []byte) {
	r.out = append(r.out, Outgoing{local, to, b})
}

// message handles one STUN message.
func (r *Registry) message(local int, from netip.AddrPort, m *stun.Message) {
	switch m.Type {
	case stun.BindingRequest:
		r.binding(local, from, m)
	case stun.NewType(wire.Register, stun.ClassRequest):
		r.register(local, from, m)
	case stun.NewType(wire.Refresh, stun.ClassRequest),
		stun.NewType(wire.Introduce, stun.ClassRequest),
		stun.NewType(wire.CloseChannel, stun.ClassRequest),
		stun.NewType(wire.Introduced, stun.ClassSuccessResponse):
		r.sealed(local, from, m)
	default:
		r.stats.Malformed++
	}
}

// sealed handles what only a registered node can say: it authenticates first.
func (r *Registry) sealed(local int, from netip.AddrPort, m *stun.Message) {
	e, err := wire.ParseEnvelope(m)
	if err != nil {
		r.stats.Malformed++
		return
	}
	g := r.byHandle[e.Handle]
	if g == nil {
		r.stats.Unknown++
		r.plainError(local, from, m, wire.CodeUnknownRegistration, nil)
		return
	}
	content, err := wire.Open(m, e.Sequence, &g.keys.ToServer)
	if err != nil {
		r.stats.Forged++
		return
	}
	if !g.window.Take(e.Sequence) {
		r.stats.Replayed++
		return
	}
	switch m.Type.Method {
	case wire.Refresh:
		r.refresh(local, from, g, e, m, content)
	case wire.Introduce:
		r.introduce(g, e, content)
	case wire.Introduced:
		r.acknowledged(g, e)
	case wire.CloseChannel:
		if c, ok := content.Channel(); ok {
			r.closeChannel(g, c)
		}
		r.answer(g, e, nil)
	default: // a method that no client of ours uses
	}
}

// answer seals a success to where the node is.
func (r *Registry) answer(g *registration, e wire.Envelope, content wire.Attrs) {
	r.reply(g, stun.NewType(e.Type.Method, stun.ClassSuccessResponse), e.ID, 0, content)
}

func (r *Registry) reply(g *registration, t stun.MessageType, id wire.TransactionID, code int, content wire.Attrs) {
	g.sequence++
	env := wire.Envelope{Type: t, ID: id, Handle: g.handle, Sequence: g.sequence, Code: code}
	l := g.legs[g.primary]
	r.send(l.local, l.addr, env.Seal(nil, &g.keys.ToNode, content))
}

// plainErrors is how many unauthenticated errors leave in a second.
const plainErrors = 200

// plainError answers without a seal, never longer than the request, and not
// often: whoever reads it can only take it as a hint.
func (r *Registry) plainError(local int, to netip.AddrPort, m *stun.Message, code int, nonce []byte, unknown ...stun.AttrType) {
	if nonce == nil && !r.errors.take(r.now, 1, plainErrors, plainErrors) {
		r.stats.Limited++
		return
	}
	if e := wire.AppendError(nil, m, code, nonce, unknown...); len(e) <= len(m.Raw) {
		r.send(local, to, e)
	}
}

// binding answers a plain Binding request (RFC 8489 §6.3.1), for anyone.
func (r *Registry) binding(local int, from netip.AddrPort, m *stun.Message) {
	if !r.prefixes.take(r.now, from.Addr()) {
		r.stats.Limited++
		return
	}
	var unknown []stun.AttrType
	for _, a := range m.Attributes {
		if a.Type.Required() && !knownRequired[a.Type] {
			unknown = append(unknown, a.Type)
		}
	}
	if len(unknown) > 0 {
		r.plainError(local, from, m, int(stun.CodeUnknownAttribute), nil, unknown...)
		return
	}
	r.stats.Bindings++
	r.send(local, from, wire.AppendBindingAnswer(nil, m.TransactionID, from))
}

// knownRequired are the comprehension-required attributes that a Binding
// request may carry without meaning anything to us.
var knownRequired = map[stun.AttrType]bool{
	stun.AttrUsername: true, stun.AttrMessageIntegrity: true, wire.AttrIntegrity: true,
	stun.AttrRealm: true, stun.AttrNonce: true, wire.AttrPadding: true,
}
