package bodkin_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/natlab"
)

// fault is something that happens to a network while two nodes talk.
type fault struct {
	name  string
	lasts time.Duration // until it is mended; 0: it stays
	// strike does it, and returns how to mend it.
	strike func(x *lane) (mend func())
	// silent is for how long streams may be silent at the most.
	silent time.Duration
	// back is when traffic must be direct again, counted from the mending.
	back time.Duration
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func link(name string, change func(*natlab.Link)) func(x *lane) func() {
	return func(x *lane) func() {
		x.Helper()
		was := map[string]natlab.Link{
			"home-a": {Delay: 20 * time.Millisecond}, "home-b": {Delay: 30 * time.Millisecond},
			"server": {Delay: 10 * time.Millisecond},
		}[name]
		now := was
		change(&now)
		must(x.T, x.net.SetLink(name, now))
		return func() { must(x.T, x.net.SetLink(name, was)) }
	}
}

func nothing() {}

// isData tells QUIC's packets from probes.
func isData(p natlab.Packet) bool {
	const headers = 28 // of IPv4 and UDP
	return len(p.Data) > headers && p.Data[headers] >= 0x40
}

// sleep is that of a machine, whose NAT forgets it meanwhile. What its sockets send
// is lost; that time stands still for it is left to the tests of the node's core.
func sleep(machine int, box string) func(x *lane) func() {
	return func(x *lane) func() {
		x.at[machine].move(nowhere)
		return func() {
			must(x.T, x.net.Reboot(box, false))
			x.at[machine].move(0)
			x.at[machine].woken <- struct{}{}
		}
	}
}

const (
	// introduced is two seconds and an introduction, where no second route is warm.
	introduced = 2160 * time.Millisecond
	// pause is none but that of the flows' own pace and of what is still under way.
	pause = 250 * time.Millisecond
	// outage is as long as nothing passes at all.
	outage = 80 * time.Second
	// asleep is longer than the server remembers a node.
	asleep = 5 * time.Minute
)

var faults = []fault{
	{"direct blocked", 10 * time.Second, func(x *lane) func() {
		return x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
	}, time.Second, time.Second},
	{"direct blocked from a to b", 10 * time.Second, func(x *lane) func() {
		from, to := x.home("home-a"), x.home("home-b")
		return x.net.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to })
	}, time.Second, time.Second},
	{"direct blocked from b to a", 10 * time.Second, func(x *lane) func() {
		from, to := x.home("home-b"), x.home("home-a")
		return x.net.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to })
	}, time.Second, time.Second},
	{"direct blocked above 600 bytes", 30 * time.Second, func(x *lane) func() {
		between := natlab.Between(x.home("home-a"), x.home("home-b"))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > 600 })
	}, 2 * time.Second, 25 * time.Second},
	{"direct blocked above 600 bytes for a second", time.Second, func(x *lane) func() {
		between := natlab.Between(x.home("home-a"), x.home("home-b"))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > 600 })
	}, 2 * time.Second, 8 * time.Second},
	{"data is swallowed between the homes", 30 * time.Second, func(x *lane) func() {
		between := natlab.Between(x.home("home-a"), x.home("home-b"))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && isData(p) })
	}, time.Second, 45 * time.Second},
	{"data is swallowed from a to b", 30 * time.Second, func(x *lane) func() {
		from, to := x.home("home-a"), x.home("home-b")
		return x.net.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to && isData(p) })
	}, 2 * time.Second, 45 * time.Second},
	{"five packets of data a second pass between the homes", 30 * time.Second, func(x *lane) func() {
		between, next := natlab.Between(x.home("home-a"), x.home("home-b")), time.Now()
		return x.net.Block(func(p natlab.Packet) bool {
			if !between(p) || !isData(p) {
				return false
			}
			if time.Now().Before(next) {
				return true
			}
			next = time.Now().Add(200 * time.Millisecond)
			return false
		})
	}, 2 * time.Second, 45 * time.Second},
	{"30% loss for 10 s", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Loss = 0.3 }), 15 * time.Second, 30 * time.Second},
	{"200 ms jitter", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Jitter = 200 * time.Millisecond }), 2 * time.Second, 30 * time.Second},
	{"reordering", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Reorder = 0.2 }), time.Second, time.Second},
	{"mapping of a dropped", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-a", false)); return nothing }, time.Second, time.Second},
	{"mapping of b dropped", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-b", false)); return nothing }, time.Second, time.Second},
	{"NAT of a rebooted with a new address", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-a", true)); return nothing }, introduced, introduced},
	{"NAT of b rebooted with a new address", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-b", true)); return nothing }, introduced, introduced},
	{"both NATs rebooted with new addresses", 0, func(x *lane) func() {
		must(x.T, x.net.Reboot("home-a", true))
		must(x.T, x.net.Reboot("home-b", true))
		return nothing
	}, introduced, introduced},
	{"a moved", 0, func(x *lane) func() { x.at[0].move(1); return nothing }, introduced, introduced},
	{"b moved", 0, func(x *lane) func() { x.at[1].move(1); return nothing }, introduced, introduced},
	{"both moved", 0, func(x *lane) func() { x.at[0].move(1); x.at[1].move(1); return nothing }, introduced, introduced},
	{"a asleep for 5 minutes", asleep, sleep(0, "home-a"), asleep + introduced, introduced},
	{"b asleep for 5 minutes", asleep, sleep(1, "home-b"), asleep + introduced, introduced},
	{"server restarted elsewhere", 0, func(x *lane) func() {
		x.server()
		x.serve("server2")
		return nothing
	}, pause, pause},
	{"server gone for 5 minutes", 5 * time.Minute, func(x *lane) func() {
		x.server()
		return func() { x.serve("server") }
	}, pause, pause},
	{"direct blocked while the server is gone", 20 * time.Second, func(x *lane) func() {
		x.server()
		return x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
	}, outage, 15 * time.Second},
	{"everything lost for a minute", time.Minute, link("home-a", func(l *natlab.Link) { l.Loss = 1 }), outage, 15 * time.Second},
	{"half is lost between the homes", time.Minute, func(x *lane) func() {
		between, rng := natlab.Between(x.home("home-a"), x.home("home-b")), rand.New(rand.NewPCG(1, 2))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && rng.Float64() < 0.5 })
	}, 15 * time.Second, 2 * time.Minute},
	{"everything lost for 25 s on the relay", 0, func(x *lane) func() {
		unblock := x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
		x.until("the relay", 5*time.Second, func() bool { return !goesDirect(x.a) && !goesDirect(x.b) })
		time.Sleep(15 * time.Second) // of fake time, until the hole is given up
		mend := link("home-a", func(l *natlab.Link) { l.Loss = 1 })(x)
		time.Sleep(25 * time.Second)
		mend()
		time.Sleep(15 * time.Second)
		return unblock
	}, 30 * time.Second, 15 * time.Second},
	{"ten packets a second pass between the homes", 30 * time.Second, func(x *lane) func() {
		between, next := natlab.Between(x.home("home-a"), x.home("home-b")), time.Now()
		return x.net.Block(func(p natlab.Packet) bool {
			if !between(p) {
				return false
			}
			if time.Now().Before(next) {
				return true
			}
			next = time.Now().Add(100 * time.Millisecond)
			return false
		})
	}, 15 * time.Second, 2 * time.Minute},
	{"direct blocked again and again", 0, func(x *lane) func() {
		for range 20 {
			unblock := x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
			time.Sleep(5 * time.Second) // of fake time
			unblock()
			time.Sleep(5 * time.Second)
		}
		return nothing
	}, 2 * time.Second, 35 * time.Second},
	{"relay slow", 10 * time.Second, link("server", func(l *natlab.Link) { l.Delay, l.Rate = 300*time.Millisecond, 200_000 }), pause, pause},
}

// What a network does to two nodes that talk: no byte is lost or repeated, and the
// direct route comes back.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f.run)
		})
	}
}

func (f fault) run(t *testing.T) {
	x := newLane(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	x.follow(ctx)
	l := x.load(ctx)
	x.until("the first hole", 5*time.Second, x.direct)
	time.Sleep(5 * time.Second) // of fake time
	l.each((*flow).begin)
	struck := time.Now()
	mend := f.strike(x)
	time.Sleep(f.lasts)
	mend()
	mended := time.Now()
	// A fault is not noticed at once: direct is what stays so.
	last := mended
	for begin := mended; time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) { // of fake time
		if !x.direct() {
			last = time.Now()
			if begin = last; last.Sub(mended) > 10*time.Minute {
				t.Fatal("never direct again")
			}
		}
	}
	back := last.Sub(mended)
	stream, datagrams := l.worst()
	l.finish()
	t.Logf("%-40s stream silent for %v, datagrams for %v; direct %v after the end", f.name, stream, datagrams, back)
	if stream > f.silent || back > f.back {
		t.Errorf("stream silent for %v, direct after %v; %v and %v at the most", stream, back, f.silent, f.back)
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, e := range x.events {
			t.Logf("%v %v %v %v", e.Time.Sub(struck), e.Kind, e.Route, e.Reason)
		}
	}
}
