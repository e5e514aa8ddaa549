package nat

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// Programs read this: what is there must stay as it is.
func TestReportAsJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := []string{"seen"}
	r := Report{
		Began: at, Time: at.Add(time.Second), Complete: true,
		Server:     Server{IPv4: netip.MustParseAddrPort("192.0.2.1:3478"), OtherPort: netip.MustParseAddrPort("192.0.2.1:3479")},
		Blocked:    Finding[Answer]{No, at, e},
		Mapping:    Finding[Behavior]{AddressAndPortDependent, at, e},
		Filtering:  Finding[Behavior]{Unknown, at, e},
		KeepsEarly: Finding[Answer]{NotMeasured, at, e},
		Ports:      Finding[Ports]{Ports{Allocation: Sequential, Delta: -2, Noise: 2050, Last: 4000}, at, e},
		Levels:     Finding[int]{1, at, e},
		Lifetime:   Finding[Span]{Span{20 * time.Second, 30 * time.Second}, at, e},
		Public:     []netip.Addr{netip.MustParseAddr("203.0.113.1")},
		IPv6:       IPv6{Works: Finding[Answer]{No, at, e}},
		Samples:    []Sample{{at, 40000, netip.MustParseAddrPort("192.0.2.1:3478"), netip.MustParseAddrPort("203.0.113.1:4000")}},
	}
	const want = `{"version":1,"began":"2026-01-02T03:04:05Z","time":"2026-01-02T03:04:06Z","complete":true,` +
		`"server":{"ipv4":"192.0.2.1:3478","other_port":"192.0.2.1:3479"},` +
		`"udp_blocked":{"value":"no","time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"mapping":{"value":"address-and-port-dependent","time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"filtering":{"value":"unknown","time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"keeps_early":{"value":"not measured","time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"ports":{"allocation":"sequential","delta":-2,"noise_per_second":20.5,"last":4000,"time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"levels":{"value":1,"time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"lifetime":{"at_least_s":20,"below_s":30,"time":"2026-01-02T03:04:05Z","evidence":["seen"]},` +
		`"public":["203.0.113.1"],` +
		`"ipv6":{"works":{"value":"no","time":"2026-01-02T03:04:05Z","evidence":["seen"]}},` +
		`"samples":[{"time":"2026-01-02T03:04:05Z","local_port":40000,"to":"192.0.2.1:3478","mapped":"203.0.113.1:4000"}]}`
	got, err := json.Marshal(r)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	if got, err = json.Marshal(Report{}); err != nil || string(got) != `{"version":1,"began":"0001-01-01T00:00:00Z","time":"0001-01-01T00:00:00Z","complete":false,"server":{},"public":[],"samples":[]}` {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestPortsGrowOld(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	r := Report{Time: at.Add(time.Second), Ports: Finding[Ports]{Ports{Allocation: Sequential, Age: time.Second}, at, nil}}
	r.conclude()
	if age := r.ProfileAt(at.Add(5 * time.Second)).Ports.Age; age != 6*time.Second {
		t.Errorf("age %v", age)
	}
	if age := r.ProfileAt(at.Add(time.Hour)).Ports.Age; age != maxAge {
		t.Errorf("age %v", age)
	}
}
