package punch

import (
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/wire"
)

// Answers by a confirmed route tell of the data that came by it, and the first ones,
// which would be longer than the probe, do not.
func TestAnswersCountDataOfConfirmedRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.a.engine.cfg.Traffic = func(l Local, to netip.AddrPort) (sent, arrived uint64) {
		if l != 1 || to != w.b.public {
			t.Errorf("a asks for %d, %v", l, to)
		}
		return 1000, 0
	}
	w.b.engine.cfg.Traffic = func(Local, netip.AddrPort) (sent, arrived uint64) { return 0, 400 }
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(2*time.Second, w.direct)
	if !w.direct() {
		t.Fatal("no hole")
	}
	told := func() (all []Count) {
		for _, a := range w.a.actions {
			if a.Op == Confirmed && a.Count.Told {
				all = append(all, a.Count)
			}
		}
		return all
	}
	w.run(time.Second, never) // what is under way
	before := len(told())
	w.step(w.a, Input{Op: Check, Local: 1, From: w.b.public})
	w.run(time.Second, never)
	all := told()
	if len(all) != before+1 || all[before] != (Count{true, 1000, 400}) {
		t.Errorf("told %v", all)
	}
	for i, p := range w.b.packets {
		answer, err := wire.ParseProbe(p.Data)
		if err != nil || !answer.Answer {
			continue
		}
		if answer.Counts || len(p.Data) > wire.ProbeSize {
			t.Errorf("b's first answer, its packet %d, has %d bytes", i, len(p.Data))
		}
		break
	}
}
