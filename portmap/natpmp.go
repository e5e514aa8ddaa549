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

// pmpProtocol asks a gateway by NAT-PMP (RFC 6886).
type pmpProtocol struct {
	surroundings

	mu       sync.Mutex
	epoch    epoch
	external netip.Addr // as last told
}

func newNATPMP(s surroundings) protocol {
	if !s.gateway.Addr.Is4() {
		return nil
	}
	p := &pmpProtocol{surroundings: s}
	s.link.listen(p.hear)
	return p
}

func (p *pmpProtocol) name() Protocol { return NATPMP }
func (p *pmpProtocol) close()         {}

// find asks for the external address (RFC 6886 §3.2). A router that has none at
// the moment speaks the protocol all the same.
func (p *pmpProtocol) find(ctx context.Context) (netip.Addr, error) {
	m, err := p.ask(ctx, pcp.PMPMessage{Opcode: pcp.PMPAddress})
	if err != nil {
		return netip.Addr{}, err
	}
	if m.Result == pcp.PMPSuccess {
		p.told(m.External)
	}
	return p.outside(), nil
}

func (p *pmpProtocol) can(a ask) error {
	switch {
	case a.internal.Addr() != p.gateway.Local.Addr():
		return fmt.Errorf("%w by NAT-PMP: %v is not this machine; ask there, or by UPnP", ErrCannot, a.internal.Addr())
	case len(a.remotes) > 0:
		return fmt.Errorf("%w by NAT-PMP: a mapping for some remotes only", ErrCannot)
	case a.peer.IsValid():
		return fmt.Errorf("%w by NAT-PMP: that a flow's mapping be kept", ErrCannot)
	}
	return nil
}

// addressWait is how long the external address may take once the mapping is
// there: the one told before serves otherwise.
const addressWait = time.Second

func (p *pmpProtocol) open(ctx context.Context, a ask, had grant) (grant, error) {
	port := a.external
	if had.external.Port() != 0 && !a.exact {
		port = had.external.Port()
	}
	m, err := p.mapping(ctx, a, port, a.lifetime)
	if err != nil {
		return grant{}, err
	}
	if a.exact && m.ExternalPort != port {
		// NAT-PMP cannot say that it must be this one.
		return grant{}, errors.Join(p.remove(ctx, a, had), another(NATPMP, p.gateway.Addr, m.ExternalPort))
	}
	within, cancel := context.WithTimeout(ctx, addressWait)
	defer cancel()
	external, err := p.find(within)
	if err != nil {
		external = p.outside()
	}
	return grant{
		external: netip.AddrPortFrom(external, m.ExternalPort),
		lifetime: time.Duration(m.Lifetime) * time.Second,
	}, nil
}

// remove asks for a lifetime and a port of 0 (RFC 6886 §3.4).
func (p *pmpProtocol) remove(ctx context.Context, a ask, _ grant) error {
	_, err := p.mapping(ctx, a, 0, 0)
	return err
}

func (p *pmpProtocol) mapping(ctx context.Context, a ask, port uint16, lifetime time.Duration) (pcp.PMPMessage, error) {
	request := pcp.PMPMessage{
		Opcode: pcp.PMPMapUDP, Internal: a.internal.Port(), ExternalPort: port, Lifetime: uint32(lifetime / time.Second),
	}
	if a.transport == TCP {
		request.Opcode = pcp.PMPMapTCP
	}
	m, err := p.ask(ctx, request)
	if err == nil && m.Result != pcp.PMPSuccess {
		err = p.refused(m)
	}
	return m, err
}

// ask sends a request until its response comes. A router that speaks only PCP says
// so in PCP's words.
func (p *pmpProtocol) ask(ctx context.Context, request pcp.PMPMessage) (answer pcp.PMPMessage, err error) {
	var other error
	err = p.link.exchange(ctx, request.Append(nil), pmpSchedule, func(b []byte) bool {
		m, err := pcp.ParsePMP(b)
		if errors.Is(err, pcp.ErrVersion) {
			newer, err := pcp.Parse(b)
			if err == nil && newer.Response && newer.Result == pcp.UnsuppVersion {
				other = fmt.Errorf("%w: %v does not speak NAT-PMP", ErrUnsupported, p.gateway.Addr)
			}
			return other != nil
		}
		if err != nil || !answersPMP(m, request) {
			return false
		}
		answer = m
		p.note(m)
		return true
	})
	return answer, errors.Join(err, other)
}

// answersPMP compares what a response must repeat (RFC 6886 §3.3). That a version
// is not supported is the answer to a PCP request from the same socket.
func answersPMP(m, request pcp.PMPMessage) bool {
	if !m.Response || m.Opcode != request.Opcode || m.Result == pcp.PMPUnsupportedVersion {
		return false
	}
	if m.Result != pcp.PMPSuccess {
		return m.Internal == request.Internal || m.Internal == 0
	}
	return m.Internal == request.Internal &&
		(request.Lifetime == 0 || m.Lifetime > 0 && m.ExternalPort != 0)
}

// note compares the router's clock with ours. Not all errors carry it.
func (p *pmpProtocol) note(m pcp.PMPMessage) {
	if m.Result != pcp.PMPSuccess {
		return
	}
	p.mu.Lock()
	lost := p.epoch.pmp(time.Now(), m.Epoch)
	p.mu.Unlock()
	if lost {
		p.reset()
	}
}

// hear takes announcements (RFC 6886 §3.2.1): the router has another address
// outside, or rebooted.
func (p *pmpProtocol) hear(b []byte) {
	m, err := pcp.ParsePMP(b)
	if err != nil || !m.Response || m.Opcode != pcp.PMPAddress || m.Result != pcp.PMPSuccess {
		return
	}
	if before := p.outside(); p.told(m.External) && before.IsValid() {
		p.reset()
	}
	p.note(m)
}

// told notes the external address and reports whether it is another.
func (p *pmpProtocol) told(a netip.Addr) (changed bool) {
	if a.IsUnspecified() {
		a = netip.Addr{} // what routers without an uplink say
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.external != a
	p.external = a
	return changed
}

func (p *pmpProtocol) outside() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.external
}

func (p *pmpProtocol) refused(m pcp.PMPMessage) error {
	r := pmpRefusals[m.Result]
	if r.err == nil {
		r = refusal{ErrFailed, "ask again later, or look into the router's log"}
	}
	return &RefusedError{
		Protocol: NATPMP, Gateway: p.gateway.Addr, Code: int(m.Result), Name: m.Result.String(), Err: r.err, Hint: r.hint,
	}
}
