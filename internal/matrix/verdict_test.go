package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/why"
	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/punch"
)

// fault is what is wrong in a run besides the NATs.
type fault struct {
	name string
	// before is done before anybody registers, introduced when the dialler has been
	// introduced; a and b change what the nodes are made of.
	before, introduced func(*run)
	a, b               func(*node.Config)
	away               bool // the peer does not run
	noServer, lost     bool // there is no server, or none any more
	// blames are what may be blamed for it, the first without fail. If instead, the
	// NATs are not to blame.
	blames  []why.Blame
	instead bool
}

var (
	theyAreAway = []why.Blame{{Side: why.Theirs, Layer: why.Offline}, {Side: why.Theirs, Layer: why.Policy}, {Side: why.Theirs, Layer: why.UDP}}
	noAnswer    = []why.Blame{{Side: why.Ours, Layer: why.UDP}, {Side: why.Server, Layer: why.Offline}}
	onTheWay    = []why.Blame{{Side: why.Between, Layer: why.Filtering}, {Side: why.Theirs, Layer: why.Filtering}}
)

func blame(s why.Side, l why.Layer) []why.Blame { return []why.Blame{{Side: s, Layer: l}} }

var faults = []fault{
	{name: "nothing"},
	{
		name: "nothing passes between the homes", blames: onTheWay,
		before: func(r *run) { r.sim.Block(r.notServers()) },
	},
	{
		name: "nothing comes from the peer", blames: onTheWay,
		before: func(r *run) { r.sim.Block(r.notServers("b", "home-b", "carrier-b")) },
	},
	{
		name: "nothing gets to the peer", blames: onTheWay,
		before: func(r *run) { r.sim.Block(r.notServers("a", "home-a", "carrier-a")) },
	},
	{
		name: "no server", instead: true, noServer: true, blames: []why.Blame{noAnswer[1], noAnswer[0]},
		before: func(r *run) { r.lose("server") },
	},
	{name: "the peer does not run", instead: true, away: true, blames: theyAreAway},
	{
		name: "the peer allows somebody else", instead: true, blames: []why.Blame{theyAreAway[1], theyAreAway[0], theyAreAway[2]},
		b: func(c *node.Config) { c.Peers = []peer.ID{peer.NewKey([32]byte{7}).ID()} },
	},
	{
		name: "the peer dies at the introduction", instead: true, introduced: func(r *run) { r.lose("b") },
		blames: append(slices.Clip(theyAreAway), why.Blame{Side: why.Server, Layer: why.Policy}),
	},
	{
		name: "our network dies at the introduction", instead: true, lost: true, blames: noAnswer,
		introduced: func(r *run) { r.lose("a") },
	},
	{
		name: "we stay on the relay", instead: true, blames: blame(why.Ours, why.Policy),
		a: func(c *node.Config) { c.Abilities = 0 },
	},
	{
		name: "the peer stays on the relay", instead: true, blames: blame(why.Theirs, why.Policy),
		b: func(c *node.Config) { c.Abilities = 0 },
	},
}

// notServers is what comes from the boxes and hosts named, of all if there are none
// named, and has nothing to do with the server.
func (r *run) notServers(from ...string) func(natlab.Packet) bool {
	var sources []netip.Addr
	for _, name := range from {
		if p, ok := r.sim.Place(name); ok {
			sources = append(sources, p.Addr[0].Addr(), p.Addr[1].Addr())
		}
	}
	server, _ := r.sim.Place("server")
	isServer := func(a netip.Addr) bool { return a == server.Addr[0].Addr() || a == server.Addr[1].Addr() }
	return func(p natlab.Packet) bool {
		return !isServer(p.From.Addr()) && !isServer(p.To.Addr()) &&
			(len(from) == 0 || slices.Contains(sources, p.From.Addr()))
	}
}

// lose loses everything on the link of a host.
func (r *run) lose(host string) {
	if err := r.sim.SetLink(host, natlab.Link{Loss: 1}); err != nil {
		panic(err)
	}
}

// believes is what a node behind a preset should measure.
func believes(p natlab.Preset) (out nat.Profile) {
	out = nat.Profile{Mapping: nat.None, Filtering: nat.None, KeepsEarly: nat.No, Hairpin: nat.No}
	for _, b := range p.Boxes() {
		if b.Mapping > out.Mapping {
			out.Mapping = b.Mapping
			out.Ports.Allocation = map[natlab.Allocation]nat.Allocation{
				natlab.Preserving: nat.Preserving, natlab.Sequential: nat.Sequential, natlab.Random: nat.Random,
			}[b.Ports.Allocation]
			if b.Ports.BlockSize > 0 {
				out.Ports = nat.Ports{Allocation: nat.Block, Low: 1024, High: 1023 + uint16(b.Ports.BlockSize)}
			}
		}
		if out.Mapping >= nat.AddressDependent && out.Ports.Allocation <= nat.Preserving {
			out.Ports.Allocation = nat.Random
		}
		out.Filtering = max(out.Filtering, b.Filtering)
		if b.KeepsEarly {
			out.KeepsEarly = nat.Yes
		}
		if b.Hairpinning != natlab.NoHairpinning {
			out.Hairpin = nat.Yes
		}
	}
	return out
}

func blocked(p natlab.Preset) bool {
	return slices.ContainsFunc(p.Boxes(), func(b natlab.NAT) bool { return b.Block.UDP })
}

// verdict is what the dialler says of a pair of presets.
func verdict(t *testing.T, a, b natlab.Preset, w fault) (*run, why.Verdict) {
	t.Helper()
	return verdictOf(t, natlab.TwoHomes(natlab.Options{PresetA: a, PresetB: b, Seed: 1}), w)
}

// verdictOf runs until the dialler knows how it went, and lets it judge by what it
// knows.
func verdictOf(t *testing.T, topology natlab.Topology, w fault) (*run, why.Verdict) {
	t.Helper()
	r, err := newRun(Config{Topology: topology})
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for i, change := range []func(*node.Config){w.a, w.b} {
		if change == nil {
			continue
		}
		c := r.server.config([]string{"a", "b"}[i], topology.Seed)
		change(&c)
		[]*site{r.a, r.b}[i].core = node.New(c)
		told = told || i == 0 && c.Abilities == 0
	}
	if w.before != nil {
		w.before(r)
	}
	r.a.start()
	if !w.away {
		r.b.step(node.Input{Op: node.Accept})
		r.b.start()
	}
	r.sim.Run(registerLimit, func() bool {
		return (r.a.registered || r.a.err != nil) && (w.away || r.b.registered || r.b.err != nil)
	})
	known := func(x *site) bool { return !x.registered || x.measured.Complete }
	r.sim.Run(measureLimit, func() bool { return known(r.a) && known(r.b) })
	r.sim.Run(settle, func() bool { return false })
	r.begin = r.sim.Now()
	r.b.received = func() {
		if r.result.Relayed == 0 {
			r.result.Relayed = r.since(r.sim.Now())
		}
	}
	if r.a.registered {
		r.a.step(node.Input{Op: node.Dial, ID: r.b.id})
		r.a.say()
		if w.introduced != nil && r.sim.Run(time.Second, func() bool { return r.a.account != nil }) {
			w.introduced(r)
		}
		over := func() bool { return r.a.err != nil || r.a.account != nil && ended(r.a.account.Report) }
		if w.lost {
			over = func() bool { return r.a.err != nil || !r.a.registered }
		}
		if !r.sim.Run(2*time.Minute, over) {
			t.Errorf("%s: it does not end", w.name)
		}
		// An attempt without a tactic ends before anything can have come.
		r.sim.Run(time.Second, func() bool { return r.result.Relayed > 0 })
	}
	f := r.facts()
	f.RelayOnly, f.Silent = told, f.Silent || w.introduced != nil // nobody answers a ping any more
	return r, why.Explain(f)
}

// say sends something now and then.
func (x *site) say() {
	x.sim.After(time.Second, x.say)
	x.send()
}

func ended(r punch.Report) bool {
	return !slices.ContainsFunc(r.Outcomes, func(o punch.Outcome) bool {
		return o.Result == punch.Running || o.Result == punch.Interrupted
	})
}

var errSilent = errors.New("it is silent")

// facts are what the dialler knows; whether the peer answers a ping is whether it
// got anything.
func (r *run) facts() (f why.Facts) {
	a := r.a
	switch {
	case !a.registered && a.err != nil:
		f.Server = a.err
	case !a.registered:
		f.Server = errSilent
	default:
		f.Failed = a.err
	}
	if a.account != nil {
		f.Introduced, f.Self, f.Other, f.Report = true, a.account.Self, a.account.Other, a.account.Report
		f.Silent = r.result.Relayed == 0
	}
	if len(a.routes) > 0 {
		f.Route = a.routes[0].Transport()
	}
	return f
}

// truth is what the lab knows: what may be blamed, and of what one at least has to
// be. Of a pair that no fault hinders, what is in the way is a matter of the NATs.
func truth(a, b natlab.Preset, w fault) (must, may []why.Blame) {
	switch {
	case blocked(a):
		return blame(why.Ours, why.UDP), noAnswer
	case w.noServer:
		return w.blames[:1], w.blames
	case blocked(b):
		return blame(why.Theirs, why.UDP), theyAreAway
	case w.instead:
		return w.blames[:1], w.blames
	}
	p, q := believes(a), believes(b)
	hard := func(p nat.Profile) bool { return p.Mapping >= nat.AddressDependent }
	switch {
	case hard(p) && hard(q):
		must = blame(why.Both, why.Mapping)
	case hard(p) && q.Filtering == nat.AddressAndPortDependent:
		must = blame(why.Ours, why.Mapping)
	case hard(q) && p.Filtering == nat.AddressAndPortDependent:
		must = blame(why.Theirs, why.Mapping)
	}
	if w.blames == nil {
		return must, must // and if that is nothing it has to be direct
	}
	must = append(must, w.blames...) // each hides the other
	switch keepsA, keepsB := p.KeepsEarly == nat.Yes, q.KeepsEarly == nat.Yes; {
	case keepsA && keepsB:
		may = blame(why.Both, why.Early)
	case keepsA:
		may = blame(why.Ours, why.Early)
	case keepsB:
		may = blame(why.Theirs, why.Early)
	}
	return must, append(may, must...)
}

// Two networks behind one NAT that does not hairpin, which keep what is in them apart.
func TestVerdictWithoutHairpin(t *testing.T) {
	t.Parallel()
	topology := natlab.TwoHomes(natlab.Options{PresetA: natlab.DoubleNAT, PresetB: natlab.DoubleNAT})
	topology.Boxes[0].NAT.Hairpinning = natlab.NoHairpinning
	r, v := verdictOf(t, topology, fault{})
	if v.Way != why.Relayed || !slices.Equal(v.Blame, blame(why.Both, why.Hairpin)) {
		t.Errorf("%+v; %+v", v, r.facts())
	}
}

// One side has IPv4 alone, the other IPv6.
func TestVerdictWithoutFamily(t *testing.T) {
	t.Parallel()
	only := func(x *site, is4 bool) {
		x.links = slices.DeleteFunc(x.links, func(l netip.Prefix) bool { return l.Addr().Is4() != is4 })
	}
	for _, is4 := range []bool{true, false} {
		r, v := verdictOf(t, natlab.TwoHomes(natlab.Options{IPv6: true}), fault{before: func(r *run) {
			only(r.a, is4)
			only(r.b, !is4)
		}})
		if v.Way != why.Relayed || !v.Certain || !slices.Equal(v.Blame, blame(why.Both, why.Family)) {
			t.Errorf("%+v; %+v", v, r.facts())
		}
	}
}

// Pairs that no budget opens stay on the relay without interruption, spend next to
// nothing, and say so.
func TestHopelessPairsSpendNextToNothing(t *testing.T) {
	t.Parallel()
	random, counting := natlab.SymmetricRandom, natlab.SymmetricSequential
	for _, p := range [][2]natlab.Preset{{random, random}, {random, counting}, {counting, random}, {random, natlab.SymmetricBusy}} {
		r, err := newRun(Config{
			Topology: natlab.TwoHomes(natlab.Options{PresetA: p[0], PresetB: p[1]}), Limit: 10 * time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		res := r.punch()
		v := why.Explain(r.facts())
		if res.Direct || r.a.account.Report.Sockets+r.b.account.Report.Sockets > 0 || !slices.Equal(v.Blame, blame(why.Both, why.Mapping)) {
			t.Errorf("%v: %+v; %+v", p, res, v)
		}
		if res.Gap > flowEvery {
			t.Errorf("%v: nothing came for %v", p, res.Gap)
		}
		// Some ten attempts of both sides; a voice call sends as much in 10 s.
		if res.Packets > 1000 {
			t.Errorf("%v: %d packets in ten minutes", p, res.Packets)
		}
		t.Logf("%v: %d packets in ten minutes", p, res.Packets)
	}
}

// What a node says of a pair and a fault is held against what the lab knows, for
// every pair of presets and every fault.
func TestVerdictOnEveryPairAndFault(t *testing.T) {
	t.Parallel()
	for _, w := range faults {
		t.Run(strings.ReplaceAll(w.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			var direct, relayed, none int
			for i, a := range natlab.Presets() {
				for j, b := range natlab.Presets() {
					if testing.Short() && (i+j)%3 != 0 {
						continue
					}
					r, v := verdict(t, a, b, w)
					switch v.Way {
					case why.Direct:
						direct++
					case why.Relayed:
						relayed++
					case why.None:
						none++
					}
					if complaint := judge(a, b, w, r, v); complaint != "" {
						t.Errorf("%s with %s: %s: %+v; %v", a, b, complaint, v, r.facts().Report)
					}
				}
			}
			t.Logf("%d direct, %d on the relay, %d not at all", direct, relayed, none)
		})
	}
}

// judge says what is wrong with a verdict.
func judge(a, b natlab.Preset, w fault, r *run, v why.Verdict) string {
	isDirect := len(r.a.routes) > 0 && r.a.routes[0].Direct()
	switch {
	case (v.Way == why.Direct) != isDirect:
		return fmt.Sprintf("it is direct: %v", isDirect)
	case isDirect && w.instead:
		return "it is direct in spite of that"
	case isDirect && (r.a.account.Report.Won() == "" || len(v.Blame) > 0):
		return "it does not say what the hole came of"
	case isDirect:
		return ""
	case v.Pending || v.Reason == "" || len(v.Blame) == 0:
		return "it does not say why"
	}
	must, may := truth(a, b, w)
	switch {
	case must == nil:
		return "it is not direct"
	case !slices.ContainsFunc(v.Blame, func(b why.Blame) bool { return slices.Contains(must, b) }):
		return fmt.Sprintf("it blames none of %v", must)
	case slices.ContainsFunc(v.Blame, func(b why.Blame) bool { return !slices.Contains(may, b) }):
		return fmt.Sprintf("it blames more than %v", may)
	case v.Certain && len(v.Blame) > 1:
		return "it is certain, and does not know which"
	}
	return ""
}
