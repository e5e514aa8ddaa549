package punch

import (
	"encoding/binary"
	"io"

	"bodkin/nat"
)

// spread aims at the ports of a block.
func spread(p nat.Ports) Aim { return Aim{Order: Spread, Low: p.Low, High: p.High} }

// size is how many ports a Spread may try.
func size(a Aim) int { return int(a.High) - int(a.Low) + 1 }

// sample draws n of an Aim's ports at random, none twice (a shuffle after Fisher
// and Yates, of which only the first n places are looked at).
func (a Aim) sample(n int, random io.Reader) []uint16 {
	all := make([]uint16, size(a))
	for i := range all {
		all[i] = a.Low + uint16(i)
	}
	n = min(n, len(all))
	seed := make([]byte, 4*n)
	if _, err := io.ReadFull(random, seed); err != nil {
		return all[:n:n]
	}
	for i := range n {
		// The bias of a remainder is below one in 65,000.
		j := i + int(binary.BigEndian.Uint32(seed[4*i:])%uint32(len(all)-i))
		all[i], all[j] = all[j], all[i]
	}
	return all[:n:n]
}
