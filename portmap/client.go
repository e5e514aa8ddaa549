package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/internal/pcp"
)

// Client asks this machine's routers for mappings and keeps them.
//
// One goroutine (watch) follows the gateways; each protocol of each gateway has
// one until it was found, and each address of each mapping has one (lane).
type Client struct {
	config  Config
	ctx     context.Context
	cancel  context.CancelFunc
	changed chan struct{} // mappings or gateways, for watch
	lanes   sync.WaitGroup
	rest    sync.WaitGroup
	telling sync.Mutex // one event at a time

	mu       sync.Mutex // and lanes' and speakers' states
	routers  map[Gateway]*router
	mappings []*Mapping
	err      error // why there are no gateways
	looked   bool  // for gateways, once
}

// router is a gateway with what it may speak.
type router struct {
	gateway  Gateway
	speakers []*speaker
	cancel   context.CancelFunc
}

// speaker is a protocol of a gateway.
type speaker struct {
	router   *router
	protocol protocol
	link     *link
	again    chan struct{} // to be found once more

	// Under the Client's mutex:
	found    bool
	external netip.Addr
	err      error // why it was not found
	reset    time.Time
}

// Router is a gateway and what it is known to speak.
type Router struct {
	Gateway   Gateway  `json:"gateway"`
	Protocols []Spoken `json:"protocols"`
}

// Spoken is a protocol that a router was asked by.
type Spoken struct {
	Protocol Protocol `json:"protocol"`
	Found    bool     `json:"found"`
	// External is the router's address outside, if it was told on the way.
	External netip.Addr `json:"external,omitzero"`
	// Err is why it was not found so far, nil if it just did not answer yet.
	Err error `json:"-"`
}

// Start starts a Client. Its mappings are deleted when ctx ends, or at Close.
func Start(ctx context.Context, config Config) *Client {
	config = config.withDefaults()
	c := &Client{config: config, changed: make(chan struct{}, 1), routers: make(map[Gateway]*router)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.rest.Go(c.watch)
	for _, group := range []netip.Addr{pcp.AllHosts, pcp.AllNodes6} {
		c.rest.Go(func() { c.hear(group) })
	}
	return c
}

func (c Config) withDefaults() Config {
	if c.Network == nil {
		c.Network = system{}
	}
	if c.Gateways == nil {
		c.Gateways = Gateways
	}
	if c.Protocols == nil {
		c.Protocols = Protocols()
	}
	return c
}

// Close deletes all mappings and returns when nothing runs any more. A router that
// no longer answers delays it by a second at the most.
func (c *Client) Close() error {
	c.cancel()
	c.rest.Wait()
	return nil
}

// Map asks for a mapping, and returns at once. The error says what is wrong with
// the request, or that the Client was closed.
func (c *Client) Map(r Request) (*Mapping, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	m := newMapping(c, r)
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.mappings = append(c.mappings, m)
	c.mu.Unlock()
	c.Refresh()
	return m, nil
}

// Refresh looks for gateways and addresses at once, as is done every ten seconds
// anyway: for a program that knows that they changed.
func (c *Client) Refresh() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Routers are the gateways that are asked, and what they speak.
func (c *Client) Routers() (out []Router) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.routers {
		x := Router{Gateway: r.gateway}
		for _, s := range r.speakers {
			x.Protocols = append(x.Protocols, Spoken{s.protocol.name(), s.found, s.external, s.err})
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Router) int { return a.Gateway.compare(b.Gateway) })
	return out
}

func (g Gateway) compare(h Gateway) int {
	if n := g.Local.Addr().Compare(h.Local.Addr()); n != 0 {
		return n
	}
	return g.Addr.Compare(h.Addr)
}

// gatewaysEvery is how often gateways and addresses are looked at.
const gatewaysEvery = 10 * time.Second

// watch follows the gateways and gives each mapping its lanes.
func (c *Client) watch() {
	tick := time.NewTicker(gatewaysEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		c.follow()
		now := time.Now()
		if slept(last, now) {
			c.awake()
		}
		last = now
		select {
		case <-c.changed:
		case <-tick.C:
		case <-c.ctx.Done():
			c.lanes.Wait() // they still need the links, to delete
			for _, r := range c.routers {
				r.end()
			}
			return
		}
	}
}

// sleptLeast is by how much the clock on the wall must run ahead of ours until the
// machine must have slept: timers stand still meanwhile, and lifetimes do not.
const sleptLeast = 5 * time.Second

func slept(last, now time.Time) bool {
	return now.Round(0).Sub(last.Round(0))-now.Sub(last) > sleptLeast
}

// awake has everything asked for again: it may have expired, and a lifetime is not
// what we believe it to be.
func (c *Client) awake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.mappings {
		for _, l := range m.lanes {
			l.hurry(time.Second)
		}
	}
}

// follow compares what there is with what there should be.
func (c *Client) follow() {
	gateways, err := c.config.Gateways()
	var gone []*router
	c.mu.Lock()
	c.err, c.looked = err, true
	if err == nil {
		for g, r := range c.routers {
			if !slices.Contains(gateways, g) {
				delete(c.routers, g)
				gone = append(gone, r)
			}
		}
		for _, g := range gateways {
			if c.routers[g] == nil {
				c.routers[g] = c.meet(g)
			}
		}
	}
	for _, m := range c.mappings {
		m.follow()
	}
	c.mu.Unlock()
	for _, r := range gone {
		r.end()
	}
}

// meet begins to ask a gateway what it speaks.
func (c *Client) meet(g Gateway) *router {
	r := &router{gateway: g}
	var ctx context.Context
	// It outlives the Client's context: lanes delete after that.
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(c.ctx))
	for _, name := range Protocols() {
		maker := makers[name]
		if maker == nil || !slices.Contains(c.config.Protocols, name) {
			continue
		}
		s := &speaker{router: r, link: newLink(c.config.Network, g), again: make(chan struct{}, 1)}
		s.protocol = maker(surroundings{
			gateway: g, network: c.config.Network, link: s.link, reset: func() { c.rebooted(s) },
		})
		if s.protocol == nil {
			continue
		}
		r.speakers = append(r.speakers, s)
		c.rest.Go(func() { c.seek(ctx, s) })
	}
	return r
}

// end closes what the gateway was asked with.
func (r *router) end() {
	r.cancel()
	for _, s := range r.speakers {
		s.protocol.close()
		s.link.close()
	}
}

// seekFirst and seekMost bound how long a protocol that was not found is left
// alone, seekLeast how often it is asked for because the router said something.
const (
	seekLeast = time.Second
	seekFirst = 5 * time.Minute
	seekMost  = 30 * time.Minute
)

// seek finds out whether a protocol is spoken, and again when it fell silent, or
// when the router said something unasked: its answer's epoch tells what that was.
func (c *Client) seek(ctx context.Context, s *speaker) {
	pause := seekFirst
	for {
		external, err := s.protocol.find(ctx)
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		news := !s.found || s.external != external
		s.found, s.external, s.err = err == nil, external, err
		c.mu.Unlock()
		var later <-chan time.Time
		if err != nil {
			later, pause = time.After(pause), min(2*pause, seekMost)
		} else {
			pause = seekFirst
			if news {
				c.tell(Event{Kind: EventFound, Protocol: s.protocol.name(), Gateway: s.router.gateway.Addr, External: external})
				c.wakeFound(s)
			}
		}
		select {
		case <-later:
		case <-s.again:
		case <-ctx.Done():
			return
		}
		select { // a flood of announcements is none of questions
		case <-time.After(seekLeast):
		case <-ctx.Done():
			return
		}
	}
}

// grace is how long a protocol that was found waits for a better one of the same
// gateway, whose answer is under way if it has one.
const grace = 20 * time.Millisecond

// settled reports whether a router at an interface was found by a protocol than
// which no better one can still be. The Client's mutex is held.
func (c *Client) settled(device string) bool {
	for _, r := range c.routers {
		if r.gateway.Interface != device {
			continue
		}
		for _, s := range r.speakers { // the better ones first
			if s.found {
				return true
			}
			if s.err == nil {
				break
			}
		}
	}
	return false
}

// wakeFound has the lanes that a speaker may serve ask.
func (c *Client) wakeFound(s *speaker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	after := time.Duration(0)
	for _, other := range s.router.speakers { // the better ones first
		if other == s {
			break
		}
		if !other.found && other.err == nil {
			after = grace
		}
	}
	for _, m := range c.mappings {
		for _, l := range m.lanes {
			if l.device == s.router.gateway.Interface {
				l.begin(after)
			}
		}
	}
}

// silent notes that a speaker no longer answers.
func (c *Client) silent(s *speaker, err error) {
	c.mu.Lock()
	s.found, s.err = false, err
	c.mu.Unlock()
	s.ask()
}

// ask has seek ask once more.
func (s *speaker) ask() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// resetSpread is the time over which all clients ask again of a router that has
// rebooted (RFC 6886 §3.7).
const resetSpread = 5 * time.Second

// rebooted has everything that a router granted asked for again. It is told once,
// however often the router, or who pretends to be it, says so meanwhile.
func (c *Client) rebooted(s *speaker) {
	c.mu.Lock()
	news := s.reset.IsZero() || time.Since(s.reset) >= resetSpread
	if news {
		s.reset = time.Now()
	}
	c.mu.Unlock()
	if news {
		c.tell(Event{Kind: EventRebooted, Protocol: s.protocol.name(), Gateway: s.router.gateway.Addr})
	}
	c.wake(s.router.gateway.Interface, resetSpread)
}

// hear takes what routers say to everybody, and hands it to the links of the one
// who said it. Where another program has the port and does not share it, routers'
// reboots are noticed at the next renewal.
func (c *Client) hear(group netip.Addr) {
	network := "udp6"
	if group.Is4() {
		network = "udp4"
	}
	conn, err := c.config.Network.ListenPacket(c.ctx, network, netip.AddrPortFrom(group, pcp.ClientPort))
	if err != nil {
		return
	}
	stop := context.AfterFunc(c.ctx, func() { _ = conn.Close() })
	defer stop()
	b := make([]byte, pcp.MaxSize+1)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			_ = conn.Close()
			return
		}
		for _, s := range c.speakersAt(from) {
			s.link.deliver(b[:n])
			s.ask() // some routers announce in one protocol only
		}
	}
}

func (c *Client) speakersAt(from net.Addr) (out []*speaker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.routers {
		for _, s := range r.speakers {
			if s.link.ours(from) {
				out = append(out, s)
			}
		}
	}
	return out
}

// wake has the lanes of an interface ask again, those that have a grant within a
// while.
func (c *Client) wake(device string, spread time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.mappings {
		for _, l := range m.lanes {
			if l.device == device {
				l.hurry(spread)
			}
		}
	}
}

// speakers are those that can serve a lane, the preferred first.
func (c *Client) speakers(l *lane) (out []*speaker, errs []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range Protocols() {
		for _, r := range c.routers {
			for _, s := range r.speakers {
				if r.gateway.Interface != l.device || s.protocol.name() != name {
					continue
				}
				if !s.found {
					errs = append(errs, s.err)
					continue
				}
				if err := s.protocol.can(l.ask); err != nil {
					errs = append(errs, err)
					continue
				}
				out = append(out, s)
			}
		}
	}
	return out, errs
}

func (c *Client) tell(e Event) {
	if c.config.Observe == nil {
		return
	}
	e.Time = time.Now()
	c.telling.Lock()
	defer c.telling.Unlock()
	c.config.Observe(e)
}

// system makes the system's sockets.
type system struct{}

// ListenPacket implements Network. The port of a group is shared with other
// programs; net opens it so.
func (system) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	var c net.ListenConfig
	return c.ListenPacket(ctx, network, local.String())
}

// Dial implements Network.
func (system) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, to.String())
}

// DialFrom implements sourceDialer.
func (system) DialFrom(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	return d.DialContext(ctx, network, to.String())
}

// why puts together the errors that explain why there is no grant.
func (c *Client) why(errs []error) error {
	c.mu.Lock()
	looked, none, err := c.looked, len(c.routers) == 0, c.err
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case looked && none:
		return ErrNoGateway
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ErrSilent
}
