package conform_test

import (
	"flag"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"bodkin/internal/conform"
	"bodkin/nat"
	"bodkin/natlab"
)

var boxes = flag.Int("boxes", 60, "how many boxes with fields by chance are measured")

// draw is a NAT with fields drawn by chance from values that may make sense.
func draw(r *rand.Rand) (n natlab.NAT) {
	names := make(map[string]bool)
	leaves("", reflect.TypeFor[natlab.NAT](), names)
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		for _, f := range v.Fields() {
			switch {
			case f.Kind() == reflect.Struct:
				fill(f)
			case r.IntN(3) > 0:
			case f.Type() == reflect.TypeFor[time.Duration]():
				f.SetInt(int64(time.Duration(5+r.IntN(1000)) * time.Second))
			case f.Kind() == reflect.Uint8:
				f.SetUint(uint64(r.IntN(5)))
			case f.Kind() == reflect.Bool:
				f.SetBool(r.IntN(2) == 0)
			}
		}
	}
	for {
		n = natlab.NAT{}
		fill(reflect.ValueOf(&n).Elem())
		if r.IntN(2) == 0 {
			n.Block = natlab.Block{}
		}
		if r.IntN(2) == 0 {
			tracking(&n)
		}
		if n.Check() == nil {
			return n
		}
	}
}

// tracking leaves of a box what Linux can be.
func tracking(n *natlab.NAT) {
	n.Conntrack, n.Filtering = true, nat.AddressAndPortDependent
	if n.Mapping == nat.AddressDependent {
		n.Mapping = nat.EndpointIndependent
	}
	n.Ports, n.Pooling, n.Hairpinning, n.Busy = natlab.Ports{}, 0, 0, 0
	n.UDP.Refresh, n.ICMP.TypeAgnostic, n.ICMP.Errors = 0, false, 0
	n.TCP.Mapping, n.TCP.Filtering, n.TCP.NoSimultaneousOpen, n.TCP.OnReset, n.TCP.OnFIN = 0, 0, false, 0, 0
	n.Fragments = max(n.Fragments, natlab.FragmentsReassembled)
}

func TestBoxesOfAnyFieldsAreMeasuredRight(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4787, 5382))
	for i := range *boxes {
		chain := []natlab.NAT{draw(r)}
		// Every other time two in series, the outer of which hides what the inner
		// one hides: its address is taken for that of mappings.
		if outer := draw(r); i%2 == 0 && (outer.Translates() || !chain[0].Translates()) {
			chain = append(chain, outer)
		}
		got, err := conform.Measure(t.Context(), conform.Sim{}, chain)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got.Differences(conform.Expect(chain)) {
			t.Errorf("%+v: %s", chain, d)
		}
	}
}
