// Package portmaptest has a router that speaks PCP, NAT-PMP and UPnP, for tests of
// programs that use package portmap: on a network in memory, so that time may be
// testing/synctest's, or on any socket.
//
//	router := portmaptest.NewRouter(portmaptest.Options{})
//	client := portmap.Start(ctx, portmap.Config{Network: router.Network(), Gateways: router.Gateways})
//
// Nothing is forwarded: [Router.Mappings] says what would be.
//
//	router.go       Router, and what it can be told to do
//	pcp.go          its PCP
//	natpmp.go       its NAT-PMP
//	upnp.go         how it is found and described by UPnP
//	upnp_action.go  what it does by UPnP
//	network.go      the network between it and one host
package portmaptest

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/internal/pcp"
	"bodkin/portmap"
)

// Options are where a Router is. The zero Options are the defaults: the router is
// 192.168.1.1 and 203.0.113.1, the host 192.168.1.2, and there is no IPv6.
type Options struct {
	Inside   netip.Addr // the router's address on the host's link
	External netip.Addr // its address outside
	Host     netip.Addr
	// Inside6 and Host6 are the same in IPv6, if valid: the router then opens
	// pinholes for Host6.
	Inside6, Host6 netip.Addr
	Behavior       Behavior
}

// Behavior is what a Router does. The zero Behavior is a good router's.
type Behavior struct {
	Silent  bool          // answer nothing
	Garbage bool          // answer nonsense
	Delay   time.Duration // answer that much later
	NoPCP   bool          // speak only the others
	NoPMP   bool
	// Deny refuses to map, by policy. Full refuses for lack of room, Offline
	// because there is no network outside.
	Deny, Full, Offline bool
	// MaxLifetime is the longest lifetime granted; 0: what is asked for.
	MaxLifetime time.Duration
	// InUse are external ports that others have.
	InUse []uint16
	// Says is the external address that the router claims, if valid.
	Says netip.Addr
	UPnP UPnP
}

// Mapping is what a Router would forward: External to Internal, or, for a pinhole
// where they are the same, let in.
type Mapping struct {
	Protocol  portmap.Protocol // by which it was asked
	Transport portmap.Transport
	Internal  netip.AddrPort
	External  netip.AddrPort
	Peer      netip.AddrPort // for a PEER mapping: the only remote
	Remotes   []portmap.Remote
	Expires   time.Time // zero for never
	Name      string

	nonce   [12]byte
	pinhole int // its number by UPnP
}

// Router is a fake router. Its methods may be used from several goroutines.
type Router struct {
	options Options // as it was made
	net     *network

	mu       sync.Mutex
	behavior Behavior
	outside  netip.Addr
	booted   time.Time
	mappings []Mapping
	pinholes int // how many there were by UPnP
	heard    int
	observe  func(m Mapping, there bool)
}

// NewRouter makes a router, booted now.
func NewRouter(o Options) *Router {
	set := func(a *netip.Addr, otherwise string) {
		if !a.IsValid() {
			*a = netip.MustParseAddr(otherwise)
		}
	}
	set(&o.Inside, "192.168.1.1")
	set(&o.External, "203.0.113.1")
	set(&o.Host, "192.168.1.2")
	r := &Router{options: o, behavior: o.Behavior, outside: o.External, booted: time.Now()}
	r.net = &network{router: r, conns: make(map[netip.AddrPort]*conn)}
	return r
}

// Gateways is what a host of the router's network sees, for portmap.Config.
func (r *Router) Gateways() ([]portmap.Gateway, error) {
	out := []portmap.Gateway{{Interface: "lan", Addr: r.options.Inside, Local: netip.PrefixFrom(r.options.Host, 24)}}
	if r.options.Host6.IsValid() {
		out = append(out, portmap.Gateway{Interface: "lan", Addr: r.options.Inside6, Local: netip.PrefixFrom(r.options.Host6, 64)})
	}
	return out, nil
}

// Set changes what the router does.
func (r *Router) Set(change func(b *Behavior)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.behavior)
}

// SetExternal gives the router another address outside, as a provider does at
// night. Its mappings go on there.
func (r *Router) SetExternal(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outside = a
	for i, m := range r.mappings {
		if m.External.Addr().Is4() {
			r.mappings[i].External = netip.AddrPortFrom(a, m.External.Port())
		}
	}
}

// Reboot makes the router forget its mappings and count its epoch from 0. Loud
// says whether it tells its network.
func (r *Router) Reboot(loud bool) {
	now := time.Now()
	r.mu.Lock()
	gone := r.mappings
	r.mappings, r.booted = nil, now
	b := r.behavior
	var pcpSays, pmpSays []byte
	if loud && !b.Silent && !b.NoPCP {
		pcpSays = pcp.Message{Response: true, Opcode: pcp.Announce}.Append(nil)
	}
	if loud && !b.Silent && !b.NoPMP {
		pmpSays = pcp.PMPMessage{Response: true, External: r.external()}.Append(nil)
	}
	r.mu.Unlock()
	for _, m := range gone {
		r.tell(m, false)
	}
	for _, says := range [][]byte{pcpSays, pmpSays} {
		if says != nil {
			r.net.announce(says)
		}
	}
}

// Mappings are those in force.
func (r *Router) Mappings() []Mapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire(time.Now())
	return slices.Clone(r.mappings)
}

// Heard is how many requests the router got.
func (r *Router) Heard() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard
}

// Observe has f told of each mapping that comes, changes or goes by request. One
// that only expires is not told of. It must not call the router.
func (r *Router) Observe(f func(m Mapping, there bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observe = f
}

func (r *Router) tell(m Mapping, there bool) {
	r.mu.Lock()
	f := r.observe
	r.mu.Unlock()
	if f != nil {
		f(m, there)
	}
}

// Answer is what the router says to a packet to its port 5351, nil for nothing,
// and how much later.
func (r *Router) Answer(now time.Time, from netip.AddrPort, b []byte) (answer []byte, later time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard++
	r.expire(now)
	switch d := r.behavior; {
	case d.Silent || len(b) < 2:
		return nil, 0
	case d.Garbage:
		return []byte("\x02\x81garbage, and of no multiple of four"), d.Delay
	case b[0] == pcp.PMPVersion && !d.NoPMP && from.Addr().Is4():
		return r.answerPMP(now, from, b), d.Delay
	case d.NoPCP && d.NoPMP:
		return nil, 0
	case d.NoPCP:
		// RFC 6886 §3.5: the version that there is.
		return pcp.PMPMessage{Response: true, Result: pcp.PMPUnsupportedVersion, Epoch: r.epoch(now)}.Append(nil), d.Delay
	default:
		return r.answerPCP(now, from, b), d.Delay
	}
}

func (r *Router) epoch(now time.Time) uint32 { return uint32(now.Sub(r.booted) / time.Second) }

func (r *Router) external() netip.Addr {
	if r.behavior.Says.IsValid() {
		return r.behavior.Says
	}
	return r.outside
}

func (r *Router) expire(now time.Time) {
	r.mappings = slices.DeleteFunc(r.mappings, func(m Mapping) bool { return !m.Expires.IsZero() && !m.Expires.After(now) })
}

// at is where the mapping of an internal port is in the list, -1 if nowhere.
func (r *Router) at(t portmap.Transport, internal netip.AddrPort) int {
	return slices.IndexFunc(r.mappings, func(m Mapping) bool { return m.Transport == t && m.Internal == internal })
}

// free is the external port for a new mapping: the liked one, or the next that is
// free, unless it must be that one.
func (r *Router) free(t portmap.Transport, liked uint16, exact bool) (port uint16, ok bool) {
	if liked == 0 {
		liked = 1024
	}
	for range 1 << 16 {
		taken := slices.Contains(r.behavior.InUse, liked) || slices.ContainsFunc(r.mappings, func(m Mapping) bool {
			return m.Transport == t && m.External.Addr().Is4() && m.External.Port() == liked
		})
		if !taken && liked != 0 {
			return liked, true
		}
		if exact {
			return 0, false
		}
		liked++
	}
	return 0, false
}

// put adds or replaces a mapping.
func (r *Router) put(m Mapping) {
	if i := r.at(m.Transport, m.Internal); i >= 0 {
		r.mappings[i] = m
	} else {
		r.mappings = append(r.mappings, m)
	}
	if r.observe != nil {
		r.observe(m, true)
	}
}

func (r *Router) drop(i int) {
	m := r.mappings[i]
	r.mappings = slices.Delete(r.mappings, i, i+1)
	if r.observe != nil {
		r.observe(m, false)
	}
}

// granted bounds a lifetime.
func (r *Router) granted(seconds uint32) time.Duration {
	d := time.Duration(seconds) * time.Second
	if most := r.behavior.MaxLifetime; most > 0 {
		d = min(d, most)
	}
	return d
}
