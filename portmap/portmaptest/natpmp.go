package portmaptest

import (
	"net/netip"
	"time"

	"bodkin/internal/pcp"
	"bodkin/portmap"
)

func (r *Router) answerPMP(now time.Time, from netip.AddrPort, b []byte) []byte {
	m, err := pcp.ParsePMP(b)
	if err != nil || m.Response {
		return nil
	}
	switch m.Opcode {
	case pcp.PMPAddress:
		m.External = r.external()
		if r.behavior.Offline {
			m.External, m.Result = netip.Addr{}, pcp.PMPNetworkFailure
		}
	case pcp.PMPMapUDP:
		m.Result = r.pmp(now, portmap.UDP, from.Addr(), &m)
	case pcp.PMPMapTCP:
		m.Result = r.pmp(now, portmap.TCP, from.Addr(), &m)
	default:
		m.Result = pcp.PMPUnsupportedOpcode
	}
	m.Response, m.Epoch = true, r.epoch(now)
	return m.Append(nil)
}

// pmp does what a request says and turns it into its answer.
func (r *Router) pmp(now time.Time, t portmap.Transport, from netip.Addr, m *pcp.PMPMessage) pcp.PMPResult {
	internal := netip.AddrPortFrom(from, m.Internal)
	i := r.at(t, internal)
	if m.Lifetime == 0 {
		m.ExternalPort = 0
		if i >= 0 {
			r.drop(i)
		}
		return pcp.PMPSuccess
	}
	switch b := r.behavior; {
	case b.Deny:
		return pcp.PMPRefused
	case b.Full:
		return pcp.PMPOutOfResources
	case b.Offline:
		return pcp.PMPNetworkFailure
	}
	if i >= 0 {
		m.ExternalPort = r.mappings[i].External.Port()
	} else {
		port, ok := r.free(t, m.ExternalPort, false)
		if !ok {
			return pcp.PMPOutOfResources
		}
		m.ExternalPort = port
	}
	lifetime := r.granted(m.Lifetime)
	m.Lifetime = uint32(lifetime / time.Second)
	r.put(Mapping{
		Protocol: portmap.NATPMP, Transport: t, Internal: internal,
		External: netip.AddrPortFrom(r.external(), m.ExternalPort), Expires: now.Add(lifetime),
	})
	return pcp.PMPSuccess
}
