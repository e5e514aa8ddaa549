package portmaptest

import (
	"errors"
	"net/netip"
	"time"

	"bodkin/internal/pcp"
	"bodkin/portmap"
)

// errorLifetime is how long the router says that an error will last (RFC 6887 §7.4).
const errorLifetime = 30

func (r *Router) answerPCP(now time.Time, from netip.AddrPort, b []byte) []byte {
	m, err := pcp.Parse(b)
	switch {
	case errors.Is(err, pcp.ErrVersion):
		m = pcp.Message{Result: pcp.UnsuppVersion}
	case err != nil:
		if b[1] >= 0x80 {
			return nil
		}
		m = pcp.Message{Opcode: pcp.Opcode(b[1]), Result: pcp.MalformedRequest}
	case m.Response:
		return nil
	case m.Client != from.Addr():
		m.Result = pcp.AddressMismatch
	default:
		m.Result = r.pcp(now, from.Addr(), &m)
	}
	m.Response, m.Epoch = true, r.epoch(now)
	if m.Result != pcp.Success {
		m.Lifetime = errorLifetime
	}
	return m.Append(nil)
}

// pcp does what a request says and turns it into its answer.
func (r *Router) pcp(now time.Time, from netip.Addr, m *pcp.Message) pcp.Result {
	for _, code := range m.Options.Unknown {
		if code < 128 {
			return pcp.UnsuppOption
		}
	}
	switch {
	case m.Options.ThirdParty.IsValid():
		return pcp.UnsuppOption
	case m.Opcode == pcp.Announce:
		return pcp.Success
	case m.Opcode != pcp.Map && m.Opcode != pcp.Peer:
		return pcp.UnsuppOpcode
	}
	t, ok := transport(m.Mapping.Protocol)
	if !ok {
		return pcp.UnsuppProtocol
	}
	internal := netip.AddrPortFrom(from, m.Mapping.Internal)
	i := r.at(t, internal)
	if i >= 0 && r.mappings[i].nonce != m.Mapping.Nonce {
		return pcp.NotAuthorized // RFC 6887 §11.3
	}
	if m.Lifetime == 0 {
		if i >= 0 {
			r.drop(i)
		}
		return pcp.Success
	}
	if result := r.refusal(); result != pcp.Success {
		return result
	}
	if i < 0 && !r.place(t, internal, m) {
		return pcp.CannotProvideExternal
	}
	if i >= 0 {
		m.Mapping.External = r.mappings[i].External
	}
	lifetime := r.granted(m.Lifetime)
	m.Lifetime = uint32(lifetime / time.Second)
	x := Mapping{
		Protocol: portmap.PCP, Transport: t, Internal: internal, External: m.Mapping.External,
		Expires: now.Add(lifetime), nonce: m.Mapping.Nonce, Peer: m.Mapping.Remote,
	}
	for _, f := range m.Options.Filters {
		x.Remotes = append(x.Remotes, portmap.Remote{Prefix: f.Prefix, Port: f.Port})
	}
	r.put(x)
	return pcp.Success
}

func (r *Router) refusal() pcp.Result {
	switch b := r.behavior; {
	case b.Deny:
		return pcp.NotAuthorized
	case b.Full:
		return pcp.NoResources
	case b.Offline:
		return pcp.NetworkFailure
	}
	return pcp.Success
}

// place chooses the external endpoint of a new mapping.
func (r *Router) place(t portmap.Transport, internal netip.AddrPort, m *pcp.Message) (ok bool) {
	if internal.Addr().Is6() {
		m.Mapping.External = internal
		return !m.Options.PreferFailure || m.Mapping.External.Port() == internal.Port()
	}
	port, ok := r.free(t, m.Mapping.External.Port(), m.Options.PreferFailure)
	m.Mapping.External = netip.AddrPortFrom(r.external(), port)
	return ok
}

func transport(protocol uint8) (t portmap.Transport, ok bool) {
	switch protocol {
	case pcp.UDP:
		return portmap.UDP, true
	case pcp.TCP:
		return portmap.TCP, true
	}
	return 0, false
}
