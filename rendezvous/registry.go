package rendezvous

import (
	"crypto/rand"
	"encoding/binary"
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
	RelayPerPair   int64         // bit/s between two peers, each way; default 50 Mbit/s
	RelayPerNode   int64         // bit/s from one node; default 100 Mbit/s
	RelayPerServer int64         // bit/s in all; default none
	Invitations    int           // nameplates at once, on the whole server; default 10,000
	Joins          int           // at nameplates, of a node, a minute; from an IPv4 /24 or IPv6 /48 five times as many; default 6
	Bindings       int           // plain ones, a second, from an IPv4 /24 or IPv6 /48; default 50
	Streams        int           // connections of registered nodes; default 10,000
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
	set(&l.Bindings, 50)
	set(&l.Streams, 10_000)
	set(&l.Invitations, 10_000)
	set(&l.Joins, 6)
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
	if l.RelayPerServer == 0 {
		l.RelayPerServer = -1
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
	Streams        int    `json:"streams"`       // of registered nodes, over TCP or TLS, at the moment
	Invitations    int    `json:"invitations"`   // nameplates, at the moment
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

// Outgoing is a packet to send from one of the server's sockets, or by one of its
// connections. Its Data may share memory with the packet that was taken in. One without
// Data asks to end a connection.
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

	origins []origin     // the sockets, by number
	request stun.Message // the latest Binding request, for its memory
	answers []byte       // room for the next ones

	byHandle map[wire.Handle]*registration
	index
	graves map[grave]burial // who left a moment ago
	buried []grave          // the same, in that order

	introductions map[introductionKey]*introduction
	recent        []*introduction // the same, in the order of their ends
	waiting       map[wire.TransactionID]*introduction
	rows          [tellTries - 1][]*introduction
	pairs         int
	plates        plates
	swept         time.Time

	prefixes prefixLimit
	streamed prefixLimit // the same over TCP, where sources are not spoofed
	errors   bucket      // unauthenticated errors, in all
	strays   bucket      // answers to data on channels that are not there
	relayed  bucket
	stats    Stats

	began time.Time
	now   time.Time // of the Step under way
	stamp stamp     // the same
	out   []Outgoing
}

// sweepEvery is how often what has expired is forgotten.
const sweepEvery = 5 * time.Second

// NewRegistry makes the state of a server with that key. Randomness comes from
// random, or from crypto/rand if it is nil. The sockets are the server's by number,
// where others reach them; an unspecified address is one that is not known. They
// matter to plain Binding alone, and those that are left out have no others.
func NewRegistry(key peer.Key, limits Limits, random io.Reader, sockets ...netip.AddrPort) *Registry {
	if random == nil {
		random = rand.Reader
	}
	r := &Registry{
		key: key, limits: limits.withDefaults(), rand: random,
		origins:       originsOf(sockets),
		byHandle:      make(map[wire.Handle]*registration),
		index:         newIndex(),
		graves:        make(map[grave]burial),
		introductions: make(map[introductionKey]*introduction),
		waiting:       make(map[wire.TransactionID]*introduction),
		plates:        newPlates(),
	}
	var seed [16]byte
	r.draw(seed[:])
	r.prefixes.key = [2]uint64{binary.BigEndian.Uint64(seed[:]), binary.BigEndian.Uint64(seed[8:])}
	r.streamed.key = r.prefixes.key
	r.plates.joinsBy.key, r.plates.joinsFrom.key = r.prefixes.key, r.prefixes.key
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
	s.Streams, s.Invitations = len(r.byStream), r.plates.waiting()
	return s
}

// Step takes a packet that came to the socket local at the time now, or by a
// connection, and appends what to send. It wants Tick to be called at next.
func (r *Registry) Step(now time.Time, local int, from netip.AddrPort, b []byte, out []Outgoing) (_ []Outgoing, next time.Time) {
	r.begin(now, out)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if len(b) > 0 && b[0]&0xF0 == 0x40 {
		r.relay(local, from, b)
	} else if isStream(local) {
		r.stream(local, from, b)
	} else if wire.IsBindingRequest(b) {
		r.plain(local, from, b)
	} else {
		r.control(local, from, b)
	}
	return r.end()
}

// Tick repeats what was not acknowledged and forgets what has expired. It wants
// to be called again at next.
func (r *Registry) Tick(now time.Time, out []Outgoing) (_ []Outgoing, next time.Time) {
	r.begin(now, out)
	r.retransmit()
	r.forgetIntroductions()
	if r.now.Sub(r.swept) >= sweepEvery {
		r.sweep()
		r.sweepPlates()
		r.swept = r.now
	}
	return r.end()
}

// begin sets the time, which never goes back.
func (r *Registry) begin(now time.Time, out []Outgoing) {
	if r.began.IsZero() {
		r.began, r.swept = now, now
	}
	if now.After(r.now) {
		r.now, r.stamp = now, stamp(now.Sub(r.began)/time.Millisecond)
	}
	r.out = out
}

func (r *Registry) end() (out []Outgoing, next time.Time) {
	next = r.swept.Add(sweepEvery)
	for _, row := range r.rows {
		if len(row) > 0 && row[0].nextAt.Before(next) {
			next = row[0].nextAt
		}
	}
	out, r.out = r.out, nil
	return out, next
}

func (r *Registry) send(local int, to netip.AddrPort, b []byte) {
	r.out = append(r.out, Outgoing{local, to, b})
}

// control handles what should be a STUN message.
func (r *Registry) control(local int, from netip.AddrPort, b []byte) {
	if m, err := wire.Decode(b); err != nil {
		r.malformed(local, from)
	} else {
		r.message(local, from, m)
	}
}

// message handles one STUN message.
func (r *Registry) message(local int, from netip.AddrPort, m *stun.Message) {
	switch m.Type {
	case stun.NewType(wire.Register, stun.ClassRequest):
		r.register(local, from, m)
	case stun.NewType(stun.MethodBinding, stun.ClassIndication):
		// A keepalive, as RFC 8489 §3 has them: nothing to do.
	case stun.NewType(wire.Refresh, stun.ClassRequest),
		stun.NewType(wire.Introduce, stun.ClassRequest),
		stun.NewType(wire.CloseChannel, stun.ClassRequest),
		stun.NewType(wire.Invite, stun.ClassRequest),
		stun.NewType(wire.Pair, stun.ClassRequest),
		stun.NewType(wire.Introduced, stun.ClassSuccessResponse),
		stun.NewType(wire.Pair, stun.ClassSuccessResponse):
		r.sealed(local, from, m)
	default:
		r.malformed(local, from)
	}
}

// malformed counts what is no message. A connection on which it came is of no use.
func (r *Registry) malformed(local int, from netip.AddrPort) {
	r.stats.Malformed++
	if isStream(local) {
		r.send(local, from, nil)
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
		if m.Type.Class == stun.ClassRequest {
			r.plainError(local, from, m, wire.CodeUnknownRegistration, nil)
		}
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
	if m.Type.Class == stun.ClassSuccessResponse {
		r.acknowledged(g, e)
		return
	}
	switch m.Type.Method {
	case wire.Refresh:
		r.refresh(local, from, g, e, m, content)
	case wire.Introduce:
		r.introduce(g, e, content)
	case wire.Invite:
		r.invite(g, e, content)
	case wire.Pair:
		r.letter(g, e, content)
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

// reply seals a message to where the node is.
func (r *Registry) reply(g *registration, t stun.MessageType, id wire.TransactionID, code int, content wire.Attrs) {
	if l := g.leg(g.primary); l.place.valid() {
		r.replyTo(int(l.local), l.place.endpoint(), g, t, id, code, content)
	}
}

func (r *Registry) replyTo(local int, to netip.AddrPort, g *registration, t stun.MessageType, id wire.TransactionID, code int, content wire.Attrs) {
	g.sequence++
	e := wire.Envelope{Type: t, ID: id, Handle: g.handle, Sequence: g.sequence, Code: code}
	r.send(local, to, e.Seal(nil, &g.keys.ToNode, content))
}

// plainErrors is how many unauthenticated errors leave in a second.
const plainErrors = 200

// plainError answers without a seal, never longer than the request, and not
// often: whoever reads it can only take it as a hint. A 401 or 438 has a NONCE and
// no limit: who has to prove an address must not wait because of others.
func (r *Registry) plainError(local int, to netip.AddrPort, m *stun.Message, code int, nonce []byte) {
	if nonce == nil && !r.errors.take(r.stamp, 1, plainErrors, plainErrors) {
		r.stats.Limited++
		return
	}
	if e := wire.AppendError(nil, m, code, nonce); len(e) <= len(m.Raw) || isStream(local) {
		r.send(local, to, e)
	}
}
