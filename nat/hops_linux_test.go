package nat_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestHops(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	lab, err := netbed.Kernel.Start(t.Context(), topology(natlab.CGNAT.Boxes(), natlab.Link{Delay: 5 * time.Millisecond}, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	server := lab.Host("server").Addr()
	hops, err := nat.Hops(t.Context(), lab.Host("a"), netip.AddrPortFrom(server, 3478), 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(hops) != 5 || !hops[0].IsPrivate() || !netip.MustParsePrefix("100.64.0.0/10").Contains(hops[1]) || hops[3].IsValid() || hops[4].IsValid() {
		t.Errorf("%v on the way to %v", hops, server)
	}
}

func TestHopsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	lab, err := netbed.Kernel.Start(t.Context(), topology(natlab.Linux.Boxes(), natlab.Link{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nat.Hops(ctx, lab.Host("a"), netip.MustParseAddrPort("192.0.2.99:9"), 3); err == nil {
		t.Error("no error")
	}
}
