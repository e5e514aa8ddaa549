package cli

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
)

func TestSizesForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 1234: "1.2 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1_500_000: "1.5 MB", 7_300_000_000: "7.3 GB", 1<<64 - 1: "18.4 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d is %q instead of %q", n, got, want)
		}
	}
}

func TestSpansForPeople(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 59999 * time.Millisecond: "59s", time.Minute: "1m 0s", 90 * time.Second: "1m 30s",
		time.Hour + 59*time.Second: "1h 0m", 50*time.Hour + 30*time.Minute: "2d 2h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q instead of %q", d, got, want)
		}
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	id := func(b byte) peer.ID { return peer.NewKey([32]byte{b}).ID() }
	at := func(s string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(s)} }
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s := bodkin.Status{
		ID: id(1), Server: "bodkin://example.org:3478/ID", Registered: true, Since: now.Add(-2 * time.Hour),
		Private: at("192.168.1.2:5000"), Observed: at("203.0.113.7:6000"), Services: []string{"chat", "ssh"},
		Peers: []bodkin.PeerStatus{{
			ID: id(2),
			Routes: []bodkin.Route{
				{Transport: "udp", Endpoint: at("198.51.100.2:7000")[0], RTT: 12340 * time.Microsecond},
				{Transport: "relay", Endpoint: at("192.0.2.1:3478")[0]},
			},
			Traffic: map[string]bodkin.Traffic{"udp": {Sent: 1 << 20}, "relay": {Sent: 300, Received: 4000}},
		}},
	}
	want := `peer ID            ` + id(1).String() + `
server             bodkin://example.org:3478/ID (registered)
seen from inside   192.168.1.2:5000
seen from outside  203.0.113.7:6000
services           chat, ssh
running for        2h 0m

peer               ` + id(2).String() + `
  route            udp 198.51.100.2:7000, 12.3 ms, in use
  route            relay 192.0.2.1:3478
  traffic          relay: 300 B sent, 4.0 kB received
  traffic          udp: 1.0 MB sent, 0 B received`
	if got := withBook(nil).statusText(s, nil, now); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	alone := withBook(nil).statusText(bodkin.Status{Displaced: true}, nil, now)
	for _, part := range []string{"(not registered; another process accepts connections)", "services           none", "outside  none"} {
		if !strings.Contains(alone, part) {
			t.Errorf("no %q in\n%s", part, alone)
		}
	}
}

func TestPingSummary(t *testing.T) {
	t.Parallel()
	var s pingSummary
	for _, p := range []struct {
		by string
		ms int
	}{{"relay", 100}, {"relay", 120}, {"udp", 50}, {"relay", 110}, {"udp", 40}} {
		s.add(bodkin.Pong{RTT: time.Duration(p.ms) * time.Millisecond, Route: bodkin.Route{Transport: p.by}})
	}
	want := `--- 6xzgz24yvs: 5 answers
3 answers by relay, min/avg/max 100.0/110.0/120.0 ms
2 answers by udp, min/avg/max 40.0/45.0/50.0 ms`
	id := peer.NewKey([32]byte{1}).ID()
	want = strings.Replace(want, "6xzgz24yvs", id.Short(), 1)
	if got := s.text(id.Short()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLongTextIsWrapped(t *testing.T) {
	t.Parallel()
	word := strings.Repeat("x", 37)
	var l lines
	l.wrap("why", word+" "+word+" end")
	l.wrap("", "- "+word+" "+word+" end")
	l.wrap("", strings.Repeat("y", 100))
	at := strings.Repeat(" ", 19)
	want := "why                " + word + " " + word + "\n" + at + "end\n" +
		at + "- " + word + "\n" + at + "  " + word + " end\n" + at + strings.Repeat("y", 100)
	if got := l.text(); got != want {
		t.Errorf("%s\ninstead of\n%s", got, want)
	}
}
