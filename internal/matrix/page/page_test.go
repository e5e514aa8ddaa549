package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"bodkin/internal/matrix/trace"
)

var sampleNames = []string{
	"open", "firewall", "full-cone", "port-restricted", "linux", "openwrt", "symmetric-sequential", "symmetric-random", "cgnat", "udp-blocked",
}

// sample is a report of made-up results: "symmetric-…" pairs fail, "udp-blocked"
// always, "cgnat" sometimes.
func sample() Report {
	r := Report{
		Command: "bodkin lab matrix --bed sim --runs 20 --seed 1 --html matrix.html",
		Facts:   []Fact{{"bed", "sim"}, {"runs", "20 a pair"}, {"loss", "0 %"}},
	}
	chance := rand.New(rand.NewPCG(1, 2))
	hard := func(n string) int { return strings.Count(n, "symmetric") }
	for _, n := range sampleNames {
		r.Names = append(r.Names, Name{n, "What " + n + " is, and where it is met: <many> homes & offices."})
	}
	for _, a := range sampleNames {
		var row []*Cell
		for _, b := range sampleNames {
			share := 1.0
			switch {
			case a == "udp-blocked" || b == "udp-blocked" || hard(a)+hard(b) == 2:
				share = 0
			case hard(a)+hard(b) == 1 && a != "open" && b != "open":
				share = 0.35
			case a == "cgnat" || b == "cgnat":
				share = 0.9
			}
			row = append(row, sampleCell(chance, share))
		}
		r.Cells = append(r.Cells, row)
	}
	r.Cells[0][0] = nil
	return r
}

func sampleCell(chance *rand.Rand, share float64) *Cell {
	c := &Cell{Runs: 20, Packets: 4 + 20*(1-share), Relayed: 6000 + 580000*(1-share), Limit: 160 * time.Millisecond}
	for range c.Runs {
		if chance.Float64() < share {
			c.Times = append(c.Times, c.Limit+time.Duration(chance.ExpFloat64()*float64(25*time.Millisecond)))
		}
	}
	if failed := c.Runs - len(c.Times); failed > 0 {
		c.Why = []Count{{"home-b dropped 14 packets: filtered: address and port", failed}}
		c.Kept = append(c.Kept, Run{Number: 3, Outcome: "relay: home-b dropped 14 packets: filtered: address and port; 21 packets", Trace: sampleTrace(false)})
	}
	if len(c.Times) > 0 {
		c.Kept = append(c.Kept, Run{Number: 1, Direct: true, Outcome: "direct after 160 ms to 198.51.100.10:41641, server-reflexive; 5 packets", Trace: sampleTrace(true)})
	}
	return c
}

// sampleTrace is an introduction, and probes that arrive or do not.
func sampleTrace(works bool) trace.Trace {
	t := trace.Trace{
		Lines: []trace.Line{
			{Name: "a", Kind: trace.Host, Addr: "192.168.1.10"},
			{Name: "home-a", Kind: trace.NAT, Addr: "203.0.113.10"},
			{Name: "core", Kind: trace.Core},
			{Name: "server", Kind: trace.Server, Addr: "192.0.2.10"},
			{Name: "home-b", Kind: trace.NAT, Addr: "198.51.100.10"},
			{Name: "b", Kind: trace.Host, Addr: "192.168.2.10"},
		},
		Omitted: map[trace.Class]int{trace.Data: 12},
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	stop := func(line, at int, fate trace.Fate, text string) trace.Stop {
		return trace.Stop{Line: line, At: ms(at), Fate: fate, Text: text}
	}
	add := func(name string, class trace.Class, ttl uint8, stops ...trace.Stop) {
		t.Packets = append(t.Packets, trace.Packet{Name: name, Class: class, Bytes: 120, TTL: ttl, Stops: stops})
	}
	const a, homeA, core, server, homeB, b = 0, 1, 2, 3, 4, 5
	outA, inA := "192.168.1.10:41641 → 203.0.113.10:41641", "203.0.113.10:41641 → 192.168.1.10:41641"
	outB, inB := "192.168.2.10:41641 → 198.51.100.10:41641", "198.51.100.10:41641 → 192.168.2.10:41641"
	add("Introduce", trace.Control, 64, stop(a, 0, trace.Passed, "to 192.0.2.10:3478"), stop(homeA, 0, trace.Changed, outA), stop(server, 30, trace.Arrived, ""))
	add("Introduce success", trace.Control, 64, stop(server, 30, trace.Passed, ""), stop(homeA, 60, trace.Changed, inA), stop(a, 60, trace.Arrived, ""))
	add("Introduced", trace.Control, 64, stop(server, 30, trace.Passed, ""), stop(homeB, 70, trace.Changed, inB), stop(b, 70, trace.Arrived, ""))
	add("probe", trace.Probe, 3, stop(a, 60, trace.Passed, ""), stop(homeA, 60, trace.Changed, outA), stop(core, 80, trace.Dropped, "TTL used up"))
	if works {
		add("probe success", trace.Probe, 64, stop(b, 70, trace.Passed, ""), stop(homeB, 70, trace.Changed, outB), stop(homeA, 120, trace.Changed, inA), stop(a, 120, trace.Arrived, ""))
		add("data", trace.Data, 64, stop(a, 120, trace.Passed, ""), stop(homeA, 120, trace.Changed, outA), stop(homeB, 170, trace.Changed, inB), stop(b, 170, trace.Arrived, ""))
		return t
	}
	add("probe", trace.Probe, 64, stop(b, 70, trace.Passed, ""), stop(homeB, 70, trace.Changed, outB), stop(homeA, 120, trace.Dropped, "filtered: address and port"))
	for i, at := range []int{80, 120, 200, 360, 760, 2000, 5000} {
		moved := fmt.Sprintf("192.168.1.10:41641 → 203.0.113.10:%d", 50000+i/3)
		add("probe", trace.Probe, 64, stop(a, at, trace.Passed, ""), stop(homeA, at, trace.Changed, moved), stop(homeB, at+50, trace.Dropped, "filtered: address and port"))
		add("probe", trace.Probe, 64, stop(b, at+7, trace.Passed, ""), stop(homeB, at+7, trace.Changed, outB), stop(homeA, at+40, trace.Lost, "lost on the way"))
		add("port unreachable", trace.ICMP, 64, stop(homeB, at+50, trace.Passed, "about the packet before"), stop(homeA, at+100, trace.Changed, "203.0.113.10 → 192.168.1.10"), stop(a, at+100, trace.Arrived, ""))
	}
	return t
}

func written(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageNeedsNothingElse(t *testing.T) {
	t.Parallel()
	page := written(t, sample())
	// Without them, the browser's own policy would still forbid what these find.
	if m := regexp.MustCompile(`(?i)(src|href)="[^#"]|url\(|@import|https?://[^w]`).FindString(page); m != "" {
		t.Errorf("the page points elsewhere: %q", m)
	}
	if !strings.Contains(page, `default-src 'none'`) {
		t.Error("no content security policy")
	}
}

func TestPageIsTheSameForTheSameResults(t *testing.T) {
	t.Parallel()
	one, again := written(t, sample()), written(t, sample())
	if one != again {
		t.Error("two pages of one report differ")
	}
}

func TestTextsInThePageStayTexts(t *testing.T) {
	t.Parallel()
	r := sample()
	evil := `</script><script>alert("x")</script>`
	r.Names[1] = Name{"firewall", evil}
	r.Cells[1][1].Kept = []Run{{Number: 1, Outcome: evil, Trace: trace.Trace{Packets: []trace.Packet{{Name: evil}}}}}
	r.Command = evil
	if strings.Contains(written(t, r), evil) {
		t.Error("a text became part of the page's code")
	}
}

func TestPercentKeepsNoneAndAllApart(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]string{0: "0 s0", 0.001: "1 s1", 0.5: "50 s5", 0.999: "99 s9", 1: "100 s10"} {
		if got := percent(share) + " " + shade(share); got != want {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
}

func TestDataHoldsEveryStop(t *testing.T) {
	t.Parallel()
	raw, err := sample().encode()
	if err != nil {
		t.Fatal(err)
	}
	var d data
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	want := sampleTrace(false)
	got := d.Cells[9][9].Kept[0]
	if len(got.Packets) != len(want.Packets) || got.Omitted["data"] != 12 {
		t.Fatalf("%d packets, omitted %v", len(got.Packets), got.Omitted)
	}
	for i, p := range want.Packets {
		if len(got.Packets[i]) != 4+4*len(p.Stops) {
			t.Errorf("packet %d: %v", i, got.Packets[i])
		}
		name, _ := got.Packets[i][0].(float64)
		if d.Texts[int(name)] != p.Name {
			t.Errorf("packet %d is called %q", i, d.Texts[int(name)])
		}
	}
}
