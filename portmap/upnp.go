package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"bodkin/internal/igd"
)

// upnpProtocol asks a gateway as a UPnP Internet Gateway Device. Over IPv6 it only
// opens pinholes: most routers open one only to the address that asks.
type upnpProtocol struct {
	surroundings

	ctx    context.Context
	cancel context.CancelFunc
	rest   sync.WaitGroup
	watch  sync.Once

	mu       sync.Mutex
	device   *igd.Device
	external netip.Addr // as last told
}

func newUPnP(s surroundings) protocol {
	p := &upnpProtocol{surroundings: s}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

func (p *upnpProtocol) name() Protocol { return UPnP }

func (p *upnpProtocol) close() {
	p.cancel()
	p.rest.Wait()
}

func (p *upnpProtocol) at() igd.Link {
	return igd.Link{
		Network: sourced{p.network}, Interface: p.gateway.Interface,
		Local: p.gateway.Local, Gateway: p.gateway.Addr,
	}
}

// find searches. A router that answered nothing useful speaks no UPnP as far as
// we are concerned, and is asked again as a silent one is.
func (p *upnpProtocol) find(ctx context.Context) (netip.Addr, error) {
	d, err := igd.Find(ctx, p.at())
	if err != nil {
		return netip.Addr{}, p.failed(ctx, err)
	}
	external, err := d.External(ctx)
	if err != nil || p.gateway.Addr.Is6() {
		external = netip.Addr{} // it is told with the mapping, perhaps
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.device, p.external = d, external
	return external, nil
}

func (p *upnpProtocol) found() *igd.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.device
}

func (p *upnpProtocol) can(a ask) error {
	d := p.found()
	switch {
	case d == nil:
		return fmt.Errorf("%w by UPnP: no router was found", ErrCannot)
	case len(a.remotes) > 0:
		return fmt.Errorf("%w by UPnP: a mapping for some remotes only", ErrCannot)
	case a.peer.IsValid():
		return fmt.Errorf("%w by UPnP: that a flow's mapping be kept", ErrCannot)
	case a.internal.Addr().Is4() && (d.Version() == 0 || p.gateway.Addr.Is6()):
		return fmt.Errorf("%w by UPnP over IPv6: an IPv4 mapping", ErrCannot)
	case a.internal.Addr().Is4():
		return nil
	case !d.Pinholes():
		return fmt.Errorf("%w by UPnP: %v opens no IPv6 pinholes; open one in its settings", ErrCannot, d.Addr)
	case p.gateway.Addr.Is6() && a.internal.Addr() != p.gateway.Local.Addr():
		return fmt.Errorf("%w by UPnP: %v is not this machine; ask there", ErrCannot, a.internal.Addr())
	case a.exact && a.external != a.internal.Port():
		return fmt.Errorf("%w by UPnP: an IPv6 pinhole leads to another port; ask for the same one", ErrCannot)
	}
	return nil
}

func (p *upnpProtocol) open(ctx context.Context, a ask, had grant) (grant, error) {
	g, err := p.try(ctx, a, had)
	if err != nil && igd.Code(err) == 0 && ctx.Err() == nil {
		// A daemon that restarted may answer elsewhere.
		if _, err := p.find(ctx); err != nil {
			return grant{}, err
		}
		g, err = p.try(ctx, a, had)
	}
	if err != nil {
		return grant{}, p.failed(ctx, err)
	}
	p.watch.Do(func() { p.rest.Go(p.follow) })
	return g, nil
}

func (p *upnpProtocol) try(ctx context.Context, a ask, had grant) (grant, error) {
	d := p.found()
	if d == nil {
		return grant{}, igd.ErrSilent
	}
	if a.internal.Addr().Is6() {
		return p.pinhole(ctx, d, a, had)
	}
	m := p.mapping(a, had)
	if a.exact {
		m.External = a.external
	}
	m, err := d.Add(ctx, m, a.exact)
	if err != nil {
		return grant{}, err
	}
	external, err := d.External(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.external = external
	}
	return grant{external: netip.AddrPortFrom(p.external, m.External), lifetime: m.Lease}, nil
}

func (p *upnpProtocol) mapping(a ask, had grant) igd.Mapping {
	m := igd.Mapping{Protocol: igd.UDP, External: a.external, Internal: a.internal, Name: a.text, Lease: a.lifetime}
	if a.transport == TCP {
		m.Protocol = igd.TCP
	}
	if port := had.external.Port(); port != 0 {
		m.External = port
	}
	return m
}

// pinhole opens one, or renews the one that there is.
func (p *upnpProtocol) pinhole(ctx context.Context, d *igd.Device, a ask, had grant) (grant, error) {
	protocol := p.mapping(a, had).Protocol
	if id, ok := pinholeID(d, had); ok {
		lease, err := d.Update(ctx, id, a.lifetime)
		if err == nil {
			return grant{external: a.internal, lifetime: lease, id: had.id}, nil
		}
		// After a reboot there is none of that number, or it is somebody else's:
		// routers have several ways to say so.
		if igd.Code(err) == 0 {
			return grant{}, err
		}
	}
	open := grant{external: a.internal, lifetime: a.lifetime}
	enabled, allowed, err := d.Firewall(ctx)
	switch {
	case err != nil: // not all have the action
	case !enabled:
		return open, nil // nothing to be opened
	case !allowed:
		return grant{}, &igd.Error{Action: "GetFirewallStatus", Code: igd.InboundNotAllowed}
	}
	id, lease, err := d.Open(ctx, protocol, a.internal, a.lifetime)
	switch {
	case igd.Code(err) == igd.FirewallDisabled:
		return open, nil
	case err != nil:
		return grant{}, err
	}
	return grant{external: a.internal, lifetime: lease, id: fmt.Sprintf("%v/%d", d.Addr, id)}, nil
}

// pinholeID is the number of a pinhole, if it is one of this device.
func pinholeID(d *igd.Device, had grant) (uint16, bool) {
	number, ok := strings.CutPrefix(had.id, d.Addr.String()+"/")
	n, err := strconv.ParseUint(number, 10, 16)
	return uint16(n), ok && err == nil
}

func (p *upnpProtocol) remove(ctx context.Context, a ask, had grant) error {
	d := p.found()
	if d == nil {
		return nil
	}
	var err error
	if a.internal.Addr().Is4() {
		err = d.Delete(ctx, p.mapping(a, had))
	} else if id, ok := pinholeID(d, had); ok {
		err = d.Shut(ctx, id)
	}
	if err != nil {
		return p.failed(ctx, err)
	}
	return nil
}

// followEvery is how often a router that granted something is asked whether it is
// still the one that did: it has no epoch, as PCP has.
const followEvery = time.Minute

// follow notices reboots and new addresses.
func (p *upnpProtocol) follow() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		if p.moved() {
			p.reset()
		}
	}
}

func (p *upnpProtocol) moved() bool {
	d := p.found()
	same, err := d.Again(p.ctx, p.at())
	if err != nil {
		return false // silent: renewals will tell
	}
	if !same {
		_, err := p.find(p.ctx)
		return err == nil
	}
	external, err := d.External(p.ctx)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := p.gateway.Addr.Is4() && p.external != external && external.IsValid()
	if moved {
		p.external = external
	}
	return moved
}

// failed makes an error of the device one of this package.
func (p *upnpProtocol) failed(ctx context.Context, err error) error {
	code := igd.Code(err)
	var no *igd.Error
	switch {
	case errors.Is(err, igd.ErrSilent), ctx.Err() != nil:
		return fmt.Errorf("%w by UPnP from %v; if the router has UPnP, turn it on there", ErrSilent, p.gateway.Addr)
	case !errors.As(err, &no):
		return fmt.Errorf("%w to ask by UPnP: %w", ErrFailed, err)
	}
	r, known := upnpRefusals[code]
	if !known {
		r = upnpRefusal{"an error", refusal{ErrFailed, "ask again later, or look into the router's log"}}
	}
	if no.Text != "" && !strings.EqualFold(no.Text, r.name) {
		r.name += fmt.Sprintf(", %q", no.Text)
	}
	return &RefusedError{Protocol: UPnP, Gateway: p.gateway.Addr, Code: code, Name: r.name, Err: r.err, Hint: r.hint}
}

type upnpRefusal struct {
	name string
	refusal
}

// upnpRefusals are the error codes of WANIPConnection:2 §2.5 and of
// WANIPv6FirewallControl:1 §2.6.
var upnpRefusals = map[int]upnpRefusal{
	igd.InvalidAction:     {"Invalid Action", refusal{ErrUnsupported, "update the router, or turn PCP or NAT-PMP on"}},
	igd.InvalidArgs:       {"Invalid Args", refusal{ErrFailed, "the router understood the request wrongly; update it, or turn PCP or NAT-PMP on"}},
	igd.ActionFailed:      {"Action Failed", refusal{ErrFailed, "look into the router's log; some routers refuse so when their table is full, or for ports below 1024"}},
	igd.NotImplemented:    {"Optional Action Not Implemented", refusal{ErrUnsupported, "update the router, or turn PCP or NAT-PMP on"}},
	igd.NotAuthorised:     {"Action not authorized", refusal{ErrDenied, "allow it in the router's UPnP settings: often ports below 1024 and those of other machines are not"}},
	igd.PinholeSpace:      {"PinholeSpaceExhausted", refusal{ErrResources, "close pinholes on the router that are no longer needed, or restart it"}},
	igd.InboundNotAllowed: {"InboundPinholeNotAllowed", refusal{ErrDenied, "allow IPv6 pinholes in the router's settings"}},
	igd.ProtocolUnknown:   {"ProtocolNotSupported", refusal{ErrUnsupported, "the router opens no pinholes for this transport"}},
	igd.WildcardInSource:  {"WildCardNotPermittedInSrcIP", refusal{ErrUnsupported, "the router maps ports only for single remotes; map it in the router's settings"}},
	igd.Conflict:          {"ConflictInMappingEntry", refusal{ErrInUse, "choose another external port, or do without Exact"}},
	igd.SamePortRequired:  {"SamePortValuesRequired", refusal{ErrUnsupported, "the router maps a port only to the same one; use one port inside and outside"}},
	igd.ExternalWildcard:  {"ExternalPortOnlySupportsWildcard", refusal{ErrUnsupported, "the router maps all ports or none; map it in the router's settings"}},
	igd.NoPortMaps:        {"NoPortMapsAvailable", refusal{ErrResources, "delete mappings on the router that are no longer needed, or restart it"}},
	igd.ConflictOther:     {"ConflictWithOtherMechanisms", refusal{ErrInUse, "the port is mapped in the router's settings; choose another external port, or do without Exact"}},
}

// sourceDialer is a Network that can choose the address to connect from.
type sourceDialer interface {
	DialFrom(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error)
}

// sourced is a Network as package igd wants it. Where the network cannot choose,
// the system does, which errs only on machines with several addresses on a link.
type sourced struct{ Network }

// Dial implements igd.Network.
func (n sourced) Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if d, ok := n.Network.(sourceDialer); ok {
		return d.DialFrom(ctx, network, local, to)
	}
	return n.Network.Dial(ctx, network, to)
}
