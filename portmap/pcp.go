package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/pcp"
)

// pcpProtocol asks a gateway by PCP (RFC 6887).
type pcpProtocol struct {
	surroundings

	mu     sync.Mutex
	epoch  epoch
	nonces map[[12]byte]uint32 // of mappings that are there: their lifetime in seconds
}

func newPCP(s surroundings) protocol {
	p := &pcpProtocol{surroundings: s, nonces: make(map[[12]byte]uint32)}
	s.link.listen(p.hear)
	return p
}

func (p *pcpProtocol) name() Protocol { return PCP }
func (p *pcpProtocol) close()         {}

// find asks with ANNOUNCE (RFC 6887 §14.1), which changes nothing. That the router
// does not know the opcode is an answer as well.
func (p *pcpProtocol) find(ctx context.Context) (netip.Addr, error) {
	var refused error
	request := pcp.Message{Opcode: pcp.Announce, Client: p.gateway.Local.Addr()}
	err := p.ask(ctx, request, pcpSchedule, func(m pcp.Message) bool {
		if m.Opcode != pcp.Announce {
			return false
		}
		if m.Result != pcp.Success && m.Result != pcp.UnsuppOpcode {
			refused = p.refused(m)
		}
		return true
	})
	return netip.Addr{}, errors.Join(err, refused)
}

func (p *pcpProtocol) can(a ask) error {
	switch {
	case a.internal.Addr() != p.gateway.Local.Addr():
		return fmt.Errorf("%w by PCP: %v is not this machine; ask there, or by UPnP", ErrCannot, a.internal.Addr())
	case a.peer.IsValid() && a.peer.Addr().Is4() != a.internal.Addr().Is4():
		return fmt.Errorf("%w: %v and %v are of different families", ErrCannot, a.internal, a.peer)
	}
	return nil
}

func (p *pcpProtocol) open(ctx context.Context, a ask, had grant) (grant, error) {
	m, err := p.mapping(ctx, p.request(a, had, a.lifetime), pcpSchedule)
	if err != nil {
		return grant{}, err
	}
	p.mu.Lock()
	p.nonces[a.nonce] = m.Lifetime
	p.mu.Unlock()
	external := m.Mapping.External
	if a.exact && external.Port() != a.external {
		// Some routers do not know PREFER_FAILURE, and do not say so.
		return grant{}, errors.Join(p.remove(ctx, a, had), another(PCP, p.gateway.Addr, external.Port()))
	}
	if external.Addr().IsUnspecified() {
		external = netip.AddrPortFrom(netip.Addr{}, external.Port())
	}
	return grant{external: external, lifetime: time.Duration(m.Lifetime) * time.Second}, nil
}

// remove asks for a lifetime of 0 (RFC 6887 §15), by the faster schedule: we are
// about to end. PEER cannot shorten a lifetime: what it kept expires by itself.
func (p *pcpProtocol) remove(ctx context.Context, a ask, _ grant) error {
	p.mu.Lock()
	delete(p.nonces, a.nonce)
	p.mu.Unlock()
	if a.peer.IsValid() {
		return nil
	}
	a.external, a.exact, a.remotes = 0, false, nil
	_, err := p.mapping(ctx, p.request(a, grant{}, 0), pmpSchedule)
	return err
}

// request suggests what was granted before, so that a router that lost it gives
// it back (RFC 6887 §11.3.1).
func (p *pcpProtocol) request(a ask, had grant, lifetime time.Duration) pcp.Message {
	external := netip.AddrPortFrom(anywhere(a.internal.Addr()), a.external)
	if had.external.IsValid() && !a.exact {
		external = had.external
	}
	m := pcp.Message{
		Opcode: pcp.Map, Lifetime: uint32(lifetime / time.Second), Client: p.gateway.Local.Addr(),
		Mapping: pcp.Mapping{
			Nonce: a.nonce, Protocol: pcp.UDP, Internal: a.internal.Port(), External: external,
		},
	}
	if a.transport == TCP {
		m.Mapping.Protocol = pcp.TCP
	}
	if a.peer.IsValid() {
		m.Opcode, m.Mapping.Remote = pcp.Peer, a.peer
		return m
	}
	m.Options.PreferFailure = a.exact
	for _, r := range a.remotes {
		m.Options.Filters = append(m.Options.Filters, pcp.Filter{Prefix: r.Prefix, Port: r.Port})
	}
	return m
}

// anywhere is the address of all zeros of the same family.
func anywhere(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// mapping asks by MAP or PEER and returns a good answer.
func (p *pcpProtocol) mapping(ctx context.Context, request pcp.Message, s schedule) (answer pcp.Message, err error) {
	err = p.ask(ctx, request, s, func(m pcp.Message) bool {
		failed := m.Result != pcp.Success
		bare := failed && m.Mapping == pcp.Mapping{} // a refusal need not repeat it
		if m.Opcode != request.Opcode || !bare && !answers(m.Mapping, request.Mapping) {
			return false
		}
		if !failed && request.Lifetime > 0 && (m.Lifetime == 0 || m.Mapping.External.Port() == 0) {
			return false
		}
		answer = m
		return true
	})
	if err == nil && answer.Result != pcp.Success {
		err = p.refused(answer)
	}
	return answer, err
}

// answers compares what a response must repeat (RFC 6887 §11.4, §12.4).
func answers(got, asked pcp.Mapping) bool {
	return got.Nonce == asked.Nonce && got.Protocol == asked.Protocol && got.Internal == asked.Internal && got.Remote == asked.Remote
}

// ask sends a request until take takes a response. A router that speaks only
// NAT-PMP says so in NAT-PMP's words (RFC 6886 §3.5, RFC 6887 §9). An answer for a
// third party is nobody's: we never ask for one.
func (p *pcpProtocol) ask(ctx context.Context, request pcp.Message, s schedule, take func(m pcp.Message) bool) error {
	var other error
	err := p.link.exchange(ctx, request.Append(nil), s, func(b []byte) bool {
		m, err := pcp.Parse(b)
		if errors.Is(err, pcp.ErrVersion) {
			old, err := pcp.ParsePMP(b)
			if err == nil && old.Response && old.Result == pcp.PMPUnsupportedVersion {
				other = fmt.Errorf("%w: %v does not speak PCP", ErrUnsupported, p.gateway.Addr)
			}
			return other != nil
		}
		if err != nil || !m.Response || m.Options.ThirdParty.IsValid() {
			return false
		}
		if m.Result == pcp.UnsuppVersion {
			other = p.refused(m)
			return true
		}
		if !take(m) {
			return false
		}
		p.note(m.Epoch)
		return true
	})
	return errors.Join(err, other)
}

// note compares the router's clock with ours.
func (p *pcpProtocol) note(epoch uint32) {
	p.mu.Lock()
	lost := p.epoch.pcp(time.Now(), epoch)
	p.mu.Unlock()
	if lost {
		p.reset()
	}
}

// hear takes what the router says unasked: an announcement after it lost its
// state (RFC 6887 §14.1.3), or a change of one of our mappings (§14.2).
func (p *pcpProtocol) hear(b []byte) {
	m, err := pcp.Parse(b)
	if err != nil || !m.Response || m.Result != pcp.Success {
		return
	}
	switch m.Opcode {
	case pcp.Announce:
		p.note(m.Epoch)
	case pcp.Map, pcp.Peer:
		p.mu.Lock()
		granted, ours := p.nonces[m.Mapping.Nonce]
		p.mu.Unlock()
		if ours && m.Lifetime < granted/2 {
			p.reset()
		}
	}
}

func (p *pcpProtocol) refused(m pcp.Message) error {
	r := pcpRefusals[m.Result]
	if r.err == nil {
		r = refusal{ErrFailed, "ask again later, or look into the router's log"}
	}
	return &RefusedError{
		Protocol: PCP, Gateway: p.gateway.Addr, Code: int(m.Result), Name: m.Result.String(),
		Err: r.err, Hint: r.hint, Retry: time.Duration(m.Lifetime) * time.Second,
	}
}
