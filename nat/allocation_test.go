package nat

import (
	"math/rand/v2"
	"testing"
	"time"
)

// draws are mappings a millisecond apart with these ports.
func draws(ports ...uint16) (all []mapped) {
	for i, p := range ports {
		all = append(all, mapped{local: 40000 + uint16(i), port: p, sent: time.Unix(1000, 0).Add(time.Duration(i) * time.Millisecond), fresh: true, clean: true})
	}
	return all
}

func TestAllocationOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ports      []uint16
		allocation Allocation
		delta      int16
	}{
		"kept":                    {[]uint16{40000, 40001, 40002, 40003}, Preserving, 0},
		"kept but for one":        {[]uint16{40000, 40001, 1234, 40003}, Preserving, 0},
		"one kept by chance":      {[]uint16{40000, 51111, 1234, 27000, 63000}, Random, 0},
		"counting":                {[]uint16{5000, 5001, 5002, 5003, 5004}, Sequential, 1},
		"counting down":           {[]uint16{5000, 4996, 4992, 4988, 4984}, Sequential, -4},
		"counting while wrapping": {[]uint16{65533, 65534, 65535, 1024, 1025, 1026, 1027}, Sequential, 1},
		"counting with others":    {[]uint16{5000, 5002, 5004, 5010, 5012, 5014, 5018}, Sequential, 2},
		"counting with very many": {[]uint16{5000, 5007, 5011, 5024, 5029, 5041, 5055}, Sequential, 1},
		"two overtook":            {[]uint16{5000, 5001, 5003, 5002, 5004, 5005, 5006}, Sequential, 1},
		"drawn":                   {[]uint16{5000, 61234, 23456, 9876, 44444}, Random, 0},
		"drawn from a block":      {[]uint16{5000, 5300, 5123, 5411, 5077, 5222}, Block, 0},
		"two":                     {[]uint16{5000, 6000}, UnknownAllocation, 0},
		"none":                    {nil, UnknownAllocation, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, evidence, _ := allocation(draws(c.ports...))
			if p.Allocation != c.allocation || p.Delta != c.delta {
				t.Errorf("%+v (%s), want %v %d", p, evidence, c.allocation, c.delta)
			}
		})
	}
}

// Ports that are drawn are hardly ever taken for a sequence, of however few.
func TestDrawnIsNotCounted(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{64, 256, 512, 4096, 60000} {
		wrong := 0
		const rounds = 20_000
		for range rounds {
			ports := make([]uint16, burst+1)
			for i := range ports {
				ports[i] = uint16(1024 + r.IntN(size))
			}
			if p, _, _ := allocation(draws(ports...)); p.Allocation == Sequential {
				wrong++
			}
		}
		if wrong > rounds/500 {
			t.Errorf("of %d ports %d of %d draws were taken for a sequence", size, wrong, rounds)
		}
	}
}

// The bounds of a block are those of an aligned one where there is one, and hold
// nearly all of its ports otherwise.
func TestBoundsOfBlocks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct{ low, size int }{{2048, 64}, {2048, 512}, {4096, 4096}, {1280, 512}, {10000, 1000}, {1024, 2048}} {
		inside, exact, waste := 0.0, 0, 0.0
		const rounds = 2000
		for range rounds {
			ports := make([]uint16, enoughSamples+2)
			for i := range ports {
				ports[i] = uint16(c.low + r.IntN(c.size))
			}
			low, high := bounds(ports)
			if int(low) == c.low && int(high) == c.low+c.size-1 {
				exact++
			}
			inside += float64(min(int(high), c.low+c.size-1)-max(int(low), c.low)+1) / float64(c.size)
			waste += float64(int(high)-int(low)+1) / float64(c.size)
		}
		if c.low%c.size == 0 && c.size&(c.size-1) == 0 && exact < rounds*98/100 {
			t.Errorf("%+v was found exactly in %d of %d rounds", c, exact, rounds)
		}
		if inside < 0.97*rounds || waste > 1.45*rounds {
			t.Errorf("%+v: on average the bounds hold %.3f of it, and are %.3f as wide", c, inside/rounds, waste/rounds)
		}
	}
}
