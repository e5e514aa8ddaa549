package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/punch"
)

func TestMappedEndpointsAreCandidates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	mapped := netip.MustParseAddrPort("203.0.113.77:7000")
	a.step(Input{Op: Mapped, Mapped: []netip.AddrPort{mapped}})
	offered := func() bool {
		return slices.Contains(a.core.self.Side.Candidates, punch.Candidate{Kind: punch.Mapped, Transport: punch.UDP, Endpoint: mapped})
	}
	if !offered() {
		t.Errorf("candidates %+v", a.core.self.Side.Candidates)
	}
	w.run(time.Second) // a tells the server
	begun := b.probesTo(mapped)
	b.dial(a)
	w.until(time.Second, func() bool { return b.direct(a) })
	if b.probesTo(mapped) == begun {
		t.Error("the mapped endpoint was not tried")
	}
	a.step(Input{Op: Mapped})
	if offered() {
		t.Errorf("candidates %+v after the mapping went", a.core.self.Side.Candidates)
	}
}

func TestMappingsLeaveRoomAndRepeatNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a := w.home("a", delayA)
	host := a.core.self.Side.Candidates[0]
	many := []netip.AddrPort{host.Endpoint}
	for port := range uint16(20) {
		many = append(many, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.77"), 7000+port))
	}
	a.step(Input{Op: Mapped, Mapped: many})
	mapped := 0
	for _, c := range a.core.self.Side.Candidates {
		if c.Kind == punch.Mapped {
			mapped++
		}
		if c.Endpoint == host.Endpoint && c.Kind != punch.Host {
			t.Errorf("%v twice", c.Endpoint)
		}
	}
	if mapped != maxMappedCandidates-1 {
		t.Errorf("%d mapped candidates", mapped)
	}
}
