package path

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/punch"
)

func TestRelayFirstThenDirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begin := w.now
	w.a.step(Input{Op: Want})
	if !w.a.relayed() {
		t.Fatal("no relay route beside the request")
	}
	if !w.run(toServer*2, w.b.relayed) {
		t.Fatal("the other side has no relay route with its introduction")
	}
	if !w.run(time.Second, w.bothDirect) {
		t.Fatal("no hole")
	}
	// RTT(A,S) + RTT(A,B), and nothing more.
	if d := w.a.routes[0].Since.Sub(begin); d != 2*toServer+2*toEach {
		t.Errorf("direct after %v", d)
	}
	if r := w.a.routes; len(r) != 2 || r[1].Direct() {
		t.Errorf("routes %v: the relay is gone", r)
	}
	s := w.a.happened(Switched)
	if len(s) != 2 || s[0].Route.Direct() || !s[1].Route.Direct() || s[1].Old.Key != w.a.channel {
		t.Errorf("switched %+v", s)
	}
	w.run(30*time.Second, never)
	if len(w.a.asked) != 1 {
		t.Errorf("%d introductions for a hole that holds", len(w.a.asked))
	}
	if r := w.a.happened(AttemptEnded); len(r) != 1 || r[0].Report.Confirmed != 1 {
		t.Errorf("attempts ended: %+v", r)
	}
}

// What a peer's attempts came to can be read while they go on, and stays true.
func TestAccountOfTheAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	last := func(s *party) Account { return *s.happened(Accounted)[len(s.happened(Accounted))-1].Account }
	w.a.step(Input{Op: Want})
	w.run(2*toServer, never)
	if got := last(w.a); !got.Ours || got.Report.Won() != "" || got.Report.Outcomes[0].Result != punch.Running ||
		got.Other.Observed[0] != w.b.public || got.Self.Observed[0] != w.a.public {
		t.Errorf("at first: %+v", got)
	}
	if !w.run(time.Second, w.bothDirect) {
		t.Fatal("no hole")
	}
	if got := last(w.a); got.Report.Won() != punch.Plain || got.Report.Confirmed != 1 {
		t.Errorf("with the hole: %+v", got)
	}
	if got := last(w.b); got.Ours || got.Report.Won() != punch.Plain {
		t.Errorf("at the other side: %+v", got)
	}
	won := last(w.a).Began
	// An introduction that the peer asks for, while there is a hole, changes nothing.
	w.b.step(Input{Op: Want})
	w.run(time.Minute, never)
	if got := last(w.a); got.Began != won || got.Report.Won() != punch.Plain {
		t.Errorf("after another introduction: %+v", got)
	}
	// One after the hole has died does.
	w.blocked = true
	silent := w.now
	for w.a.direct() {
		w.a.sends(kickEvery, func() time.Time { return silent })
	}
	if !w.run(time.Minute, func() bool {
		got := last(w.a)
		return got.Began.After(silent) && got.Report.Outcomes[0].Result == punch.FoundNone
	}) {
		t.Errorf("after the hole died: %+v", last(w.a))
	}
}

func TestFallsBackAtOnceAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Minute, never)
	w.blocked = true
	silent, begin := w.now, w.now
	// Data leaves, and nothing comes in any more.
	for w.a.direct() && w.now.Sub(begin) < 5*time.Second {
		w.a.sends(kickEvery, func() time.Time { return silent })
	}
	if !w.a.relayed() || len(w.a.routes) == 0 {
		t.Fatalf("after %v the routes are %v", w.now.Sub(begin), w.a.routes)
	}
	if d := w.now.Sub(begin); d > 2*time.Second {
		t.Errorf("fell back after %v", d)
	}
	down := w.a.happened(RouteDown)
	if len(down) != 1 || down[0].Reason == "" {
		t.Errorf("lost: %+v", down)
	}
	if len(w.a.asked) != 2 {
		t.Errorf("%d introductions: the loss of a steady route is asked about at once", len(w.a.asked))
	}
	w.run(3*time.Second, never)
	w.blocked = false
	if !w.run(time.Minute, w.bothDirect) {
		t.Error("never direct again")
	}
}

// The peer that is heard is not asked whether it lives more than every two
// seconds.
func TestActiveRouteIsCheckedRarelyWhileItAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(14*time.Second, never)
	before := len(w.a.probes)
	w.a.sends(20*time.Second, func() time.Time { return w.now })
	// Ten checks, and the repeat that leaves before a round trip is over.
	if n := len(w.a.probes) - before; n < 8 || n > 22 {
		t.Errorf("%d probes in 20 s", n)
	}
	if !w.a.direct() {
		t.Error("lost")
	}
}

// A peer that is wanted and stays unreachable, for a day: introductions and
// probes are bounded in every hour.
func TestBudgetOfADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.run(24*time.Hour, never)
	if n := len(w.a.asked); n < 24*11 || n > 24*12+20 {
		t.Errorf("%d introductions in a day", n)
	}
	if n := busiest(w.a.asked); n > 21 {
		t.Errorf("%d introductions in an hour", n)
	}
	for _, s := range []*party{w.a, w.b} {
		if n := busiest(s.probes); n > 21*40 {
			t.Errorf("%d probes in an hour", n)
		}
	}
	if len(w.a.peer.attempts) > 1 || len(w.b.peer.attempts) > 1 {
		t.Errorf("%d and %d attempts are kept", len(w.a.peer.attempts), len(w.b.peer.attempts))
	}
	last := w.a.asked[len(w.a.asked)-1]
	if d := last.Sub(w.a.asked[len(w.a.asked)-2]); d != attemptTime+maxBackoff+2*toServer {
		t.Errorf("the last pause was %v", d)
	}
}

func TestOfflinePeerIsAskedForWithBackoffButSoonFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refuse = errors.New("not reachable")
	w.a.step(Input{Op: Want})
	w.run(time.Hour, never)
	if n := len(w.a.asked); n < 100 || n > 150 {
		t.Errorf("%d introductions in an hour", n)
	}
	if len(w.a.probes) != 0 || len(w.a.routes) != 0 {
		t.Errorf("%d probes, routes %v", len(w.a.probes), w.a.routes)
	}
	if f := w.a.happened(Failed); len(f) != len(w.a.asked) || f[0].Err == nil {
		t.Errorf("%d failures of %d", len(f), len(w.a.asked))
	}
	w.refuse = nil
	if !w.run(maxAskPause+time.Second, w.bothDirect) {
		t.Error("back, and not found")
	}
}

// A peer behind the same relay whose hole comes and goes: every loss asks, but
// not at once.
func TestRouteThatComesAndGoesIsAskedForWithBackoff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	begin := w.now
	for w.now.Sub(begin) < time.Hour {
		w.blocked = false
		w.run(20*time.Minute, w.bothDirect)
		w.blocked = true
		silent := w.now
		for w.a.direct() {
			w.a.sends(kickEvery, func() time.Time { return silent })
		}
	}
	if n := len(w.a.asked); n > 40 {
		t.Errorf("%d introductions in an hour", n)
	}
}

func TestAsksAgainAfterANetworkChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.run(time.Hour, never)
	n := len(w.a.asked)
	w.blocked = false
	w.a.step(Input{Op: NetworkChanged})
	if len(w.a.asked) != n+1 {
		t.Fatal("not asked at once")
	}
	if !w.run(time.Second, w.bothDirect) {
		t.Error("not direct")
	}
	if w.b.step(Input{Op: NetworkChanged}); len(w.b.asked) != 0 {
		t.Error("a side that wants nothing asked")
	}
}

// The network changes while an introduction is under way: what it says of us is
// old, so another one follows.
func TestNetworkChangeDuringAnIntroductionIsNotForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.a.step(Input{Op: NetworkChanged})
	w.run(2*toServer, never)
	if len(w.a.asked) != 2 {
		t.Errorf("%d introductions", len(w.a.asked))
	}
}

func TestRoutesOverAClosedSocketAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Minute, w.bothDirect)
	w.a.self.Sockets = nil
	w.a.step(Input{Op: NetworkChanged})
	if len(w.a.routes) != 0 && len(w.a.peer.Routes()) != 1 { // the new request's relay
		t.Errorf("routes %v", w.a.routes)
	}
	for _, h := range w.a.happened(RouteDown) {
		if h.Reason != "socket closed" {
			t.Errorf("lost for %q", h.Reason)
		}
	}
}

func TestServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Minute, w.bothDirect)
	w.a.step(Input{Op: ServerDown})
	if !w.a.direct() || len(w.a.routes) != 1 {
		t.Fatalf("routes without a server: %v", w.a.routes)
	}
	if w.a.heard[w.a.channel] {
		t.Error("the channel is still open")
	}
	asked := len(w.a.asked)
	w.a.step(Input{Op: Tick})
	w.run(time.Hour, never)
	if len(w.a.asked) != asked {
		t.Error("asked a server that is gone")
	}
	w.a.step(Input{Op: ServerUp})
	if len(w.a.asked) != asked+1 || len(w.a.routes) != 2 || !w.a.direct() {
		t.Errorf("%d introductions, routes %v", len(w.a.asked)-asked, w.a.routes)
	}
	w.run(time.Minute, never)
	if !w.a.direct() || len(w.a.routes) != 2 {
		t.Errorf("routes %v", w.a.routes)
	}
}

func TestServerGoesDuringAnIntroduction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.a.step(Input{Op: ServerDown})
	if len(w.a.routes) != 0 {
		t.Errorf("routes %v", w.a.routes)
	}
	w.a.step(Input{Op: ServerUp})
	if !w.run(time.Second, w.bothDirect) {
		t.Error("not direct")
	}
}

func TestFailedRequestKeepsTheChannelOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.run(time.Second, never)
	w.refuse = errors.New("too many introductions")
	w.a.step(Input{Op: NetworkChanged})
	w.run(time.Second, never)
	if len(w.a.happened(Failed)) == 0 || !w.a.relayed() {
		t.Errorf("routes %v", w.a.routes)
	}
}

func TestLostChannelIsAskedForAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.run(time.Hour, never)
	n := len(w.a.asked)
	w.a.step(Input{Op: ChannelLost, By: w.a.channel})
	if len(w.a.routes) != 0 {
		t.Errorf("routes %v", w.a.routes)
	}
	if !w.run(2*firstBackoff, w.a.relayed) || len(w.a.asked) != n+1 {
		t.Error("not asked again")
	}
	n = len(w.a.asked)
	w.a.step(Input{Op: ChannelLost, By: Key{Local: 1, To: serverAt, Channel: wire.FirstAskedChannel + 5}})
	if w.run(2*firstBackoff, never); len(w.a.asked) != n {
		t.Error("another peer's channel was asked for")
	}
}

func TestRestartedPeerIsFoundAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Minute, w.bothDirect)
	old := w.b.public
	w.b.public = ap("198.51.100.1:6001")
	w.b.restart()
	w.a.step(Input{Op: NetworkChanged}) // or whatever else makes it ask
	if !w.run(time.Second, w.bothDirect) {
		t.Fatal("not direct to the new process")
	}
	if r := w.a.happened(Restarted); len(r) != 1 {
		t.Errorf("restarts: %+v", r)
	}
	if w.a.peer.Instance != w.b.self.Instance {
		t.Errorf("instance %d", w.a.peer.Instance)
	}
	if w.a.heard[Key{Local: 1, To: old}] {
		t.Error("the old process is still heard")
	}
	for _, r := range w.a.routes {
		if r.To == old {
			t.Errorf("routes %v", w.a.routes)
		}
	}
}

func TestReplayedOfferChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Second, w.bothDirect)
	p := w.b.peer
	offer := wire.Offer{Instance: w.a.self.Instance, Counter: w.a.self.Offers, Description: w.a.self.Side.AppendDescription(nil)}
	attempts, events, probes := len(p.attempts), len(w.b.events), len(w.b.probes)
	elsewhere := w.b.served
	elsewhere.Channel++
	w.b.step(Input{Op: Asked, By: elsewhere, Offer: offer})
	if p.Stats.Replayed != 1 || len(p.attempts) != attempts || len(w.b.events) != events || len(w.b.probes) != probes {
		t.Errorf("stats %+v, %d attempts, events %v", p.Stats, len(p.attempts), w.b.events[events:])
	}
	offer.Counter++
	offer.Description = []byte{1}
	w.b.step(Input{Op: Asked, By: elsewhere, Offer: offer})
	if p.Stats.Malformed != 1 || len(p.attempts) != attempts {
		t.Errorf("stats %+v", p.Stats)
	}
}

func TestBothAskAtOnce(t *testing.T) {
	t.Parallel()
	for name, swap := range map[string]bool{"in the same order": false, "in different order": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.swap = swap
			w.a.step(Input{Op: Want})
			w.b.step(Input{Op: Want})
			if !w.run(time.Second, w.bothDirect) {
				t.Fatal("no hole")
			}
			w.run(time.Hour, never)
			if !w.bothDirect() || len(w.a.happened(RouteDown))+len(w.b.happened(RouteDown)) != 0 {
				t.Errorf("routes %v and %v", w.a.routes, w.b.routes)
			}
			if n := len(w.a.peer.attempts); n > 2 {
				t.Errorf("%d attempts are kept", n)
			}
			if n := len(w.a.asked) + len(w.b.asked); n != 2 {
				t.Errorf("%d introductions", n)
			}
		})
	}
}

// A peer asks without end: neither attempts nor sources nor routes pile up, and a
// route that nobody keeps alive is no route.
func TestPeerThatAsksWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Second, w.bothDirect)
	for i := range 200 {
		// Each process of a has another endpoint, and is forgotten at once.
		w.a.public = netip.AddrPortFrom(w.a.public.Addr(), uint16(7000+i))
		w.a.self.Side.Observed = []netip.AddrPort{w.a.public}
		w.a.step(Input{Op: NetworkChanged})
		w.run(300*time.Millisecond, never)
	}
	p := w.b.peer
	if len(p.attempts) > maxAttempts || len(p.heard) > maxHeard || len(w.b.heard) > maxHeard {
		t.Errorf("%d attempts, %d sources", len(p.attempts), len(w.b.heard))
	}
	for _, r := range p.routes {
		if r.Direct() && !p.kept(r.Key) {
			t.Errorf("nobody keeps route %v alive", r)
		}
	}
	w.run(2*time.Minute, never)
	if n := len(p.routes); n > 2 {
		t.Errorf("%d routes are left: %v", n, p.routes)
	}
}

func TestUnwantedPeerIsNotAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want})
	w.run(time.Second, never)
	w.a.step(Input{Op: Unwant})
	w.run(time.Hour, never)
	if len(w.a.asked) != 1 || w.a.peer.Wanted() {
		t.Errorf("%d introductions", len(w.a.asked))
	}
	w.a.step(Input{Op: Want})
	if len(w.a.asked) != 2 {
		t.Error("not asked when wanted again")
	}
}

func TestStrayProbesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.step(Input{Op: Want})
	w.run(time.Second, w.bothDirect)
	w.a.step(Input{Op: Packet, By: Key{Local: 1, To: w.b.public}, Data: []byte("no probe")})
	var keys wire.ProbeKeys
	w.a.step(Input{Op: Packet, By: Key{Local: 1, To: w.b.public}, Data: keys.AppendProbe(nil, wire.TransactionID{}, 1)})
	if s := w.a.peer.Stats; s.Malformed != 1 || s.Strange != 1 {
		t.Errorf("stats %+v", s)
	}
	if w.a.peer.Session([8]byte{}) || !w.a.peer.Session(w.a.peer.attempts[0].engine.Session()) {
		t.Error("sessions are confused")
	}
}

func TestAdoptTakesTheRequestOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blocked = true
	w.a.step(Input{Op: Want}) // what was dialled
	dialled := w.a.peer
	w.a.meet(w.b) // what turns out to be the same process
	_, relays := w.a.peer.Adopt(dialled)
	for _, r := range relays {
		w.a.step(Input{Op: Asking, By: r})
	}
	party := wire.Party{Instance: w.b.self.Instance, Observed: w.b.self.Side.Observed, Description: w.b.self.Side.AppendDescription(nil)}
	w.a.step(Input{Op: Introduced, Party: party})
	if !w.a.relayed() || !w.a.peer.Wanted() || len(w.a.peer.attempts) != 1 {
		t.Errorf("routes %v, %d attempts", w.a.routes, len(w.a.peer.attempts))
	}
}

func TestBetter(t *testing.T) {
	t.Parallel()
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	direct := func(rtt time.Duration) Route { return Route{RTT: rtt, Since: early, Kind: punch.ServerReflexive} }
	lan := func(rtt time.Duration) Route { return Route{RTT: rtt, Since: early, Kind: punch.Host} }
	relay := func(since time.Time) Route {
		return Route{Key: Key{Channel: wire.FirstAskedChannel}, Since: since}
	}
	measured := func(rtt time.Duration, loss float64) Route {
		r := relay(early)
		r.RTT, r.Loss, r.Samples = rtt, loss, enoughSamples
		return r
	}
	by := func(t punch.Transport, rtt time.Duration) Route {
		r := direct(rtt)
		r.Local = punch.NewLocal(t, 1)
		return r
	}
	lossy := func(r Route, loss float64) Route { r.Loss = loss; return r }
	narrow := func(r Route) Route { r.Narrow = true; return r }
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		r, inUse Route
		want     bool
	}{
		"direct beats relay":                {direct(300 * ms), relay(late), true},
		"unmeasured relay never":            {relay(late), lossy(direct(300*ms), 0.9), false},
		"relay of the same time":            {measured(100*ms, 0), direct(100 * ms), false},
		"relay of half the time":            {measured(50*ms, 0), direct(100 * ms), false},
		"relay where direct is very slow":   {measured(50*ms, 0), direct(201 * ms), true},
		"and not back for a little":         {direct(150 * ms), measured(50*ms, 0), false},
		"back when it is good again":        {direct(120 * ms), measured(50*ms, 0), true},
		"relay where direct loses a third":  {measured(140*ms, 0), lossy(direct(100*ms), 0.33), true},
		"not where the relay does too":      {measured(140*ms, 0.33), lossy(direct(100*ms), 0.33), false},
		"little loss is not enough":         {measured(140*ms, 0), lossy(direct(100*ms), 0.05), false},
		"back when the loss is over":        {lossy(direct(100*ms), 0.05), measured(140*ms, 0), true},
		"newer relay":                       {relay(late), relay(early), true},
		"older relay":                       {relay(early), relay(late), false},
		"same relay":                        {relay(early), relay(early), false},
		"much quicker":                      {direct(50 * ms), direct(100 * ms), true},
		"a fifth quicker is not enough":     {direct(80 * ms), direct(100 * ms), false},
		"just above a fifth":                {direct(79 * ms), direct(100 * ms), true},
		"two milliseconds are not enough":   {direct(1 * ms), direct(3 * ms), false},
		"slower":                            {direct(200 * ms), direct(100 * ms), false},
		"equal":                             {direct(100 * ms), direct(100 * ms), false},
		"less lossy":                        {direct(100 * ms), lossy(direct(100*ms), 0.1), true},
		"quicker but lossy":                 {lossy(direct(70*ms), 0.1), direct(100 * ms), false},
		"own link beats hairpin":            {lan(1 * ms), direct(2 * ms), true},
		"own link beats an equal hairpin":   {lan(2 * ms), direct(2 * ms), true},
		"own link that is slow does not":    {lan(90 * ms), direct(20 * ms), false},
		"hairpin just quicker":              {direct(1 * ms), lan(3 * ms), false},
		"hairpin much quicker":              {direct(20 * ms), lan(90 * ms), true},
		"narrow loses to the relay":         {relay(early), narrow(direct(10 * ms)), true},
		"narrow never beats":                {narrow(direct(10 * ms)), relay(late), false},
		"narrow loses to another":           {direct(300 * ms), narrow(direct(10 * ms)), true},
		"UDP beats ICMP":                    {direct(100 * ms), by(punch.ICMP, 90*ms), true},
		"ICMP does not beat UDP":            {by(punch.ICMP, 60*ms), direct(100 * ms), false},
		"TCP beats ICMP":                    {by(punch.TCP, 100*ms), by(punch.ICMP, 100*ms), true},
		"UDP beats TCP":                     {direct(100 * ms), by(punch.TCP, 100*ms), true},
		"ICMP beats the relay":              {by(punch.ICMP, 100*ms), relay(late), true},
		"ICMP where UDP is very slow":       {by(punch.ICMP, 50*ms), direct(201 * ms), true},
		"and not back for a little, to UDP": {direct(150 * ms), by(punch.ICMP, 50*ms), false},
		"of two narrow ones the direct one": {narrow(direct(10 * ms)), narrow(relay(late)), true},
	} {
		if got := better(c.r, c.inUse); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Two holes that take turns at being a little quicker must not make QUIC start
// anew each time.
func TestRoutesDoNotFlap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := Key{Local: 1, To: ap("192.0.2.7:1")}, Key{Local: 1, To: ap("192.0.2.7:2")}
	w.a.peer.confirmed(Route{Key: one, RTT: 100 * time.Millisecond})
	w.a.peer.confirmed(Route{Key: two, RTT: 95 * time.Millisecond})
	for i := range 50 {
		w.a.peer.confirmed(Route{Key: one, RTT: time.Duration(95+i%10) * time.Millisecond})
		w.a.peer.confirmed(Route{Key: two, RTT: time.Duration(104-i%10) * time.Millisecond})
	}
	if r := w.a.peer.Routes(); r[0].Key != one {
		t.Errorf("routes %v", r)
	}
	w.a.peer.confirmed(Route{Key: two, RTT: 20 * time.Millisecond})
	if r := w.a.peer.Routes(); r[0].Key != two {
		t.Errorf("routes %v", r)
	}
}
