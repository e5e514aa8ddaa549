package matrix

import (
	"testing"
	"time"

	"bodkin/natlab"
)

// A program that has just begun dials before it knows its NAT. When it does, it asks
// again: no dial waits for an attempt that cannot find anything to end.
func TestDialBeforeTheNATIsKnown(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]natlab.Preset{
		{natlab.Linux, natlab.Linux},
		{natlab.PortRestricted, natlab.SymmetricSequential},
		{natlab.SymmetricSequential, natlab.PortRestricted},
		{natlab.SymmetricSequential, natlab.SymmetricSequential},
		{natlab.CGNATBlock, natlab.PortRestricted},
		{natlab.SymmetricRandom, natlab.PortRestricted},
		{natlab.LinuxAccept, natlab.Linux},
	} {
		for seed := range uint64(5) {
			r, err := Punch(Config{Cold: true, Topology: natlab.TwoHomes(natlab.Options{
				PresetA: pair[0], PresetB: pair[1], Seed: seed, Jitter: 10 * time.Millisecond, InsideB: 10 * time.Millisecond,
			})})
			if err != nil || !r.Direct || r.ToDirect > 5*time.Second {
				t.Errorf("%s dials %s, seed %d: %v, %v", pair[0], pair[1], seed, r, err)
			}
		}
	}
}

// A first packet that came too early has moved the mapping before anybody knows what
// the NAT does. The socket that stands by from then on finds the peer.
func TestEarlyPacketBeforeTheNATIsKnown(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r, err := Punch(Config{Cold: true, Topology: natlab.TwoHomes(natlab.Options{
			PresetA: natlab.LinuxAccept, PresetB: natlab.Linux, Seed: seed, Loss: 0.2,
		})})
		if err != nil || !r.Direct {
			t.Errorf("seed %d: %v, %v", seed, r, err)
		}
	}
}
