package cli

import (
	"net/netip"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
)

func TestWatchText(t *testing.T) {
	t.Parallel()
	id := func(b byte) peer.ID { return peer.NewKey([32]byte{b}).ID() }
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.Local)
	hole := bodkin.Route{Transport: "udp", Endpoint: netip.MustParseAddrPort("198.51.100.2:7000"), RTT: 12340 * time.Microsecond, Loss: 0.025}
	relay := bodkin.Route{Transport: "relay", Endpoint: netip.MustParseAddrPort("192.0.2.1:3478")}
	status := func(sent, received uint64) bodkin.Status {
		hole.Sent, hole.Received, relay.Sent = sent, received, 300
		return bodkin.Status{
			ID: id(1), Server: "bodkin://example.org:3478/ID", Registered: true, Since: at.Add(-time.Hour),
			Peers: []bodkin.PeerStatus{
				{
					ID: id(2), Routes: []bodkin.Route{hole, relay},
					Traffic: map[string]bodkin.Traffic{"udp": {Sent: sent, Received: received}, "relay": {Sent: 300}},
					Changes: []bodkin.Event{
						{Time: at.Add(-3 * time.Second), Kind: bodkin.EventSwitched, Peer: id(2), Route: relay, Reason: "first"},
						{Time: at.Add(-time.Second), Kind: bodkin.EventRouteConfirmed, Peer: id(2), Route: hole},
						{Time: at.Add(-time.Second), Kind: bodkin.EventSwitched, Peer: id(2), Route: hole, Reason: "better"},
					},
				},
				{ID: id(3), Changes: []bodkin.Event{
					{Time: at.Add(-2 * time.Second), Kind: bodkin.EventRouteLost, Peer: id(3), Route: relay, Reason: "silent"},
				}},
			},
		}
	}
	first := watchLine{Time: at.Add(-2 * time.Second), Status: status(1000, 0)}
	first.Rates = rates(watchLine{}, first)
	if len(first.Rates) != 0 {
		t.Errorf("rates of a first look: %v", first.Rates)
	}
	second := watchLine{Time: at, Status: status(3_001_000, 5000)}
	second.Rates = rates(first, second)
	two, three := id(2).Short(), id(3).Short()
	want := "12:00:00  " + id(1).Short() + ", registered at bodkin://example.org:3478/ID\n" + `
peer        route                  round trip  loss  sent/s  received/s
` + two + `  udp 198.51.100.2:7000  12.3 ms     2.5%  1.5 MB  2.5 kB
            relay 192.0.2.1:3478                     0 B     0 B
` + three + `  none                                     0 B     0 B

11:59:57  ` + two + `  now takes relay 192.0.2.1:3478: first
11:59:58  ` + three + `  lost relay 192.0.2.1:3478: silent
11:59:59  ` + two + `  found udp 198.51.100.2:7000
11:59:59  ` + two + `  now takes udp 198.51.100.2:7000: better
`
	if got := withBook(nil).watchText(second); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Counters that begin anew are those of another node.
	again := watchLine{Time: at.Add(time.Second), Status: status(10, 0)}
	if r := rates(second, again); len(r) != 1 {
		t.Errorf("rates after a new start: %v", r)
	}
}

func TestWatchShowsTheLatestChanges(t *testing.T) {
	t.Parallel()
	var p bodkin.PeerStatus
	for i := range shownChanges + 3 {
		p.Changes = append(p.Changes, bodkin.Event{Time: time.Unix(int64(i), 0)})
	}
	got := latestChanges([]bodkin.PeerStatus{p})
	if len(got) != shownChanges || got[0].Time.Unix() != 3 {
		t.Errorf("%d changes from %v", len(got), got[0].Time)
	}
}
