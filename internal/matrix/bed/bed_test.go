package bed

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bodkin/internal/matrix"
	"bodkin/internal/matrix/trace"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestMain(m *testing.M) { netbed.Main(m) }

func TestRealNodesPunch(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	for _, on := range []netbed.Bed{netbed.Model, netbed.Kernel} {
		t.Run(on.String(), func(t *testing.T) {
			t.Parallel()
			topology := natlab.TwoHomes(natlab.Options{Seed: 1})
			r, err := Punch(on)(t.Context(), matrix.Config{Topology: topology})
			if err != nil {
				t.Fatal(err)
			}
			limit, err := matrix.LimitOf(topology)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Direct || r.ToDirect < limit || r.Both < r.ToDirect || r.Introduced == 0 || r.Told == 0 {
				t.Errorf("%+v; the limit is %v", r, limit)
			}
			if r.Packets == 0 || r.Control == 0 || r.RelayedBytes == 0 {
				t.Errorf("counted %d packets between the homes, %d to the server, %d bytes relayed", r.Packets, r.Control, r.RelayedBytes)
			}
		})
	}
}

// A NAT that allows one session allows that with the server.
func TestRealNodesOnTheRelaySayWhy(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	topology := natlab.TwoHomes(natlab.Options{Seed: 1})
	full := natlab.PortRestricted.NAT()
	full.Limits.Host = 1
	topology.Boxes[1].Preset, topology.Boxes[1].NAT = "", full
	rec := trace.NewRecorder(topology)
	r, err := Punch(netbed.Model)(t.Context(), matrix.Config{Topology: topology, Limit: time.Second, Observe: rec.Observe})
	if err != nil {
		t.Fatal(err)
	}
	if r.Direct || !strings.Contains(r.Why, "home-b dropped") || r.RelayedBytes == 0 {
		t.Errorf("%+v", r)
	}
	drops := 0
	for _, p := range rec.Trace().Packets {
		if last := p.Stops[len(p.Stops)-1]; p.Class == trace.Probe && last.Fate == trace.Dropped {
			drops++
		}
	}
	if drops == 0 {
		t.Error("no probe was dropped")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Punch(netbed.Model)(ctx, matrix.Config{Topology: natlab.TwoHomes(natlab.Options{Seed: 1})})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
