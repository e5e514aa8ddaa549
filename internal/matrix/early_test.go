package matrix

import (
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// A NAT that keeps early packets opens to every easy one, whoever dials, also when
// introductions are lost or late and the home has a slow hop of its own.
func TestEarlyPacketsAreNoObstacle(t *testing.T) {
	t.Parallel()
	easy := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
	keeps := easy
	keeps.KeepsEarly = nat.Yes
	for _, o := range []natlab.Options{
		{},
		{InsideA: 10 * time.Millisecond, InsideB: 10 * time.Millisecond, Jitter: 10 * time.Millisecond},
		{Loss: 0.2},
	} {
		for _, other := range []natlab.Preset{natlab.FullCone, natlab.AddressRestricted, natlab.PortRestricted, natlab.Linux, natlab.CGNAT} {
			for seed := range uint64(10) {
				o.Seed = seed
				o.PresetA, o.PresetB = natlab.LinuxAccept, other
				believed := [2]nat.Profile{keeps, easy}
				if seed%2 == 1 {
					o.PresetA, o.PresetB = o.PresetB, o.PresetA
					believed = [2]nat.Profile{easy, keeps}
				}
				r, err := Punch(Config{Topology: natlab.TwoHomes(o), Profiles: &believed})
				if err != nil || !r.Direct {
					t.Errorf("%s dials %s, loss %v, inside %v, seed %d: %v, %v", o.PresetA, o.PresetB, o.Loss, o.InsideA, seed, r, err)
				}
			}
		}
	}
}
