package punch

import (
	"math"
	"slices"
	"time"

	"bodkin/nat"
)

// The ports that NATs give: RFC 6056 §3.2 and RFC 4787 §4.2.2 leave out the
// well-known ones.
const (
	firstPort = 1024
	lastPort  = 65535
)

// sayEvery is how often a node tells the server which port its NAT gave last: what
// a peer is told is half as old, on average.
const sayEvery = 15 * time.Second

// sequence aims at the next ports of a NAT that counts. Others take ports too: the
// more, the further ahead and the wider the window.
func sequence(o Order, p nat.Ports) Aim {
	perSecond := float64(p.Noise) / 100
	age := (p.Age + sayEvery/2).Seconds()
	taken := perSecond * age
	// What others take is a Poisson process; how old the number is, and how many
	// they take, is known only roughly.
	spread := perSecond*sayEvery.Seconds()/2 + 3*math.Sqrt(perSecond*(age+sayEvery.Seconds()))
	sure := sureSweep
	if o == Diagonal {
		sure = sureDiagonal
	}
	return Aim{Order: o, Last: p.Last, Delta: p.Delta, Ahead: int(taken), Width: sure + int(math.Ceil(spread))}
}

// at is the port that a sequence gives as its n-th from now, if others take what is
// expected of them.
func (a Aim) at(n int) uint16 {
	const span = lastPort - firstPort + 1
	p := (int(a.Last) - firstPort + (a.Ahead+n)*int(a.Delta)) % span
	return uint16((p+span)%span + firstPort)
}

// sweep is the ports of a window, those first that are nearest to what is expected.
// A sequence never goes back.
func (a Aim) sweep(n int) (ports []uint16) {
	for d := 0; len(ports) < n; d++ {
		ports = append(ports, a.at(1+d))
		if d > 0 && a.Ahead+1-d >= 1 && len(ports) < n {
			ports = append(ports, a.at(1-d))
		}
	}
	return ports
}

// diagonal is one port for each of our mappings, in their order, all different: a
// port that was tried before would cost no mapping, and the count would be wrong.
// Our n-th mapping meets the peer's n-th if both sides' expectations are right; if
// they are wrong, by a sum of s, it meets with a shift of s. The side that shifts
// goes up from the least.
func (a Aim) diagonal(n int) []uint16 {
	ports := make([]uint16, 0, n)
	for i := range n {
		shift := 0
		if a.Shift {
			shift = i/shiftShots - a.Width
		}
		// The first of the sequence is for the probe at the endpoint that is known.
		ports = append(ports, a.at(2+i+shift))
	}
	return slices.Clip(ports)
}
