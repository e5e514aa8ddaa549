package conform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/natlab"
)

// Sim is the bed of virtual time.
type Sim struct{}

// Start implements [Bed].
func (Sim) Start(_ context.Context, t natlab.Topology) (Lab, error) {
	s, err := natlab.NewSim(t)
	if err != nil {
		return nil, err
	}
	l := &simLab{Sim: s, hosts: make(map[string]*simHost)}
	for _, h := range t.Hosts {
		x := &simHost{SimHost: s.Host(h.Name), open: make(map[uint16]bool)}
		x.Watch(x.take)
		l.hosts[h.Name] = x
	}
	return l, nil
}

type simLab struct {
	*natlab.Sim
	hosts map[string]*simHost
}

func (l *simLab) Host(name string) Host   { return l.hosts[name] }
func (l *simLab) Reboot(box string) error { return l.Sim.Reboot(box, false) }
func (l *simLab) Virtual() bool           { return true }
func (l *simLab) Close()                  {}

func (l *simLab) Until(cond func() bool, d time.Duration) bool { return l.Run(d, cond) }

func (l *simLab) Outside(box string) netip.Addr {
	p, _ := l.Place(box)
	return p.Addr[0].Addr()
}

type simHost struct {
	*natlab.SimHost
	open    map[uint16]bool
	arrived []Arrival
}

// take takes every packet, so that the host answers none.
func (h *simHost) take(p natlab.Packet) bool {
	a := Arrival{Packet: p}
	if data, ok := p.Datagram(); ok {
		if !h.open[p.To.Port()] {
			return true
		}
		a.Data, a.Payload = nil, slices.Clone(data)
	} else {
		a.Data = slices.Clone(p.Data)
	}
	h.arrived = append(h.arrived, a)
	return true
}

func (h *simHost) Arrived() []Arrival { return h.arrived }

func (h *simHost) Listen(port uint16) error {
	h.open[port] = true
	return nil
}

func (h *simHost) SendIP(ip []byte) error {
	h.SimHost.SendIP(ip)
	return nil
}

var errNoAddress = errors.New("the host has no address of that family")

func (h *simHost) Send(port uint16, to netip.AddrPort, data []byte) error {
	from := h.Addr()
	if to.Addr().Is6() {
		from = h.Addr6()
	}
	if !from.IsValid() || !to.IsValid() {
		return fmt.Errorf("send to %v: %w", to, errNoAddress)
	}
	return h.SendIP(natlab.AppendUDP(nil, netip.AddrPortFrom(from, port), to, 64, data))
}
