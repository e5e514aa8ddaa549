package conform_test

import (
	"testing"
	"time"

	"bodkin/internal/conform"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestMain(m *testing.M) { netbed.Main(m) }

func TestPresetsAreWhatTheirNamesSayOnRealStacks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, bed netbed.Bed, p natlab.Preset) {
		verify(t, conform.Net{Bed: bed}, p.Boxes())
	})
}

// Only that a state ends can be told in real time: that it lives so long as it
// should would ask the machine to be quick.
func TestStatesExpireInRealTime(t *testing.T) {
	t.Parallel()
	const short = 2 * time.Second
	box := natlab.Linux.NAT()
	box.UDP.Unreplied, box.UDP.Replied, box.ICMP.Timeout = short, short, short
	for name, bed := range map[string]conform.Bed{
		"sim": conform.Sim{}, "model": conform.Net{Bed: netbed.Model}, "kernel": conform.Net{Bed: netbed.Kernel},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			netbed.Need(t)
			unreplied, replied, query, err := conform.Expires(t.Context(), bed, []natlab.NAT{box}, short+short/2)
			if err != nil || !unreplied || !replied || !query {
				t.Errorf("ended: UDP without a reply %v, with one %v, query %v; %v", unreplied, replied, query, err)
			}
		})
	}
}
