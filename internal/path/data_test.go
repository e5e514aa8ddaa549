package path

import (
	"testing"
	"time"

	"bodkin/punch"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	type told struct{ sent, arrived uint64 }
	for _, c := range []struct {
		name     string
		told     []told
		short    bool // at the last answer
		swallows bool
		loss     float64
	}{
		{"nothing is sent", []told{{0, 0}, {0, 0}, {0, 0}}, false, false, 0},
		{"all arrives", []told{{0, 0}, {50_000, 50_000}, {90_000, 90_000}}, false, false, 0},
		{"a fifth is lost", []told{{0, 0}, {10_000, 8000}}, false, false, 0.05},
		{"which fades where nothing is sent", []told{{0, 0}, {10_000, 8000}, {10_000, 8000}}, false, false, 0.05 * 7 / 8},
		{"it was lost before we looked", []told{{70_000, 10}, {80_000, 10_010}}, false, false, 0},
		{"nothing arrives, says one answer", []told{{0, 0}, {50_000, 0}}, true, false, 0},
		{"nothing arrives, say two", []told{{0, 0}, {50_000, 0}, {50_100, 0}}, true, true, 0},
		{"small packets arrive and large ones do not", []told{{0, 0}, {30_000, 900}, {40_000, 1200}}, true, true, 0},
		{"the second says that it was late", []told{{0, 0}, {50_000, 0}, {50_100, 50_000}}, false, false, 0},
		{"half a large packet is no evidence", []told{{0, 0}, {600, 0}, {600, 0}, {600, 0}}, true, false, 0},
		{"and forgotten when nothing more is sent", []told{{0, 0}, {600, 0}, {600, 0}, {600, 0}, {600, 0}, {600, 0}, {4600, 4000}}, false, false, 0},
		{"the loss fades beside it", []told{{0, 0}, {10_000, 8000}, {14_000, 8000}, {14_000, 8000}}, true, false, 0.05 * 7 / 8},
		{"a rest of a count does not hold the loss", []told{{0, 0}, {10_000, 8000}, {10_100, 8100}, {10_100, 8100}}, false, false, 0.05 * 7 / 8},
		{"but nothing of anything is", []told{{0, 0}, {600, 0}, {700, 0}, {800, 0}, {900, 0}}, true, true, 0},
		{"a trickle", []told{{0, 0}, {600, 100}, {700, 200}, {800, 300}, {900, 400}}, false, false, 0},
		{"the peer counts anew", []told{{0, 0}, {50_000, 50_000}, {60_000, 0}, {70_000, 10_000}}, false, false, 0},
		{"we count anew", []told{{50_000, 50_000}, {10, 50_000}, {10_010, 60_000}}, false, false, 0},
	} {
		var l ledger
		var short, swallows bool
		for _, x := range c.told {
			short, swallows = l.count(punch.Count{Told: true, Sent: x.sent, Arrived: x.arrived})
		}
		if short != c.short || swallows != c.swallows || l.loss < c.loss-0.001 || l.loss > c.loss+0.001 {
			t.Errorf("%s: short %v, swallows %v, loss %.3f", c.name, short, swallows, l.loss)
		}
	}
}

func TestRouteSetAsideIsTriedAgain(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	var n narrow
	aside := func(data bool, want time.Duration) {
		t.Helper()
		n.setAside(now, data, "")
		if got := n.again.Sub(now); got != want {
			t.Errorf("again after %v, want %v", got, want)
		}
	}
	for _, s := range []time.Duration{2, 4, 8, 16, 30, 30} {
		aside(false, s*time.Second)
	}
	n.passed = now
	now = now.Add(narrowLast + 1)
	aside(false, narrowFirst)
	n = narrow{}
	for _, s := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
		aside(true, s*time.Second)
		n.passed = now
		now = now.Add(time.Minute)
	}
	now = now.Add(swallowLast)
	aside(true, swallowFirst)
}
