package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"bodkin/natlab"
)

// Assumption is a share of people, from 0 to 1, that the population is made of.
// docs/nat-matrix.md gives the sources in full and says what is uncertain.
type Assumption struct {
	Text           string
	Low, Mid, High float64
	Source         string
}

// The assumptions, in the order of Assumptions.
const (
	onMobile = iota
	fixedCarrier
	mobileCarrier
	homeSymmetric
	fixedSymmetric
	mobileSymmetric
	easyFilter
	noUDP
	assumptions
)

const (
	richter  = "Richter et al., IMC 2016"
	langley  = "Langley et al., SIGCOMM 2017"
	noSource = "assumed"
)

// Assumptions are what the population is made of.
func Assumptions() []Assumption {
	return []Assumption{
		onMobile:        {"people on a mobile network at the moment, the others on a fixed line", 0.20, 0.35, 0.50, noSource},
		fixedCarrier:    {"fixed lines behind a carrier's NAT", 0.13, 0.18, 0.35, richter + ": 17-18 % of the networks with consumers"},
		mobileCarrier:   {"mobile networks with a carrier's NAT", 0.90, 0.94, 1, richter + ": 94 % of the mobile networks"},
		homeSymmetric:   {"home routers with a port for every destination", 0, 0.01, 0.02, richter + ": less than 2 % of the sessions"},
		fixedSymmetric:  {"carriers' NATs on fixed lines that do so", 0.05, 0.11, 0.25, richter + ": 11 % of these networks"},
		mobileSymmetric: {"carriers' NATs on mobile networks that do so", 0.30, 0.40, 0.60, richter + ": about 40 % of these networks"},
		easyFilter:      {"NATs with one port for all that let in more than who was sent to", 0, 0.10, 0.30, noSource},
		noUDP:           {"people on networks that block UDP", 0.02, 0.044, 0.06, langley + ": 4.4 % of the clients"},
	}
}

// Weight is the share of people who are behind such a NAT.
type Weight struct {
	Preset natlab.Preset `json:"preset"`
	Share  float64       `json:"share"`
}

// weigh makes a population of the assumptions' values. What is not symmetric and
// not easy is divided among the presets of that kind as home routers may be: between
// them punching makes no difference.
func weigh(v []float64) map[natlab.Preset]float64 {
	w := make(map[natlab.Preset]float64)
	add := func(share float64, of map[natlab.Preset]float64) {
		for p, s := range of {
			w[p] += share * s
		}
	}
	udp, easy := 1-v[noUDP], v[easyFilter]
	fixed, mobile := udp*(1-v[onMobile]), udp*v[onMobile]
	home, carrier := fixed*(1-v[fixedCarrier]), fixed*v[fixedCarrier]
	add(v[noUDP], map[natlab.Preset]float64{natlab.UDPBlocked: 1})
	add(home*v[homeSymmetric], map[natlab.Preset]float64{natlab.SymmetricSequential: 0.5, natlab.SymmetricRandom: 0.5})
	add(home*(1-v[homeSymmetric])*easy, map[natlab.Preset]float64{natlab.FullCone: 0.5, natlab.AddressRestricted: 0.5})
	add(home*(1-v[homeSymmetric])*(1-easy), map[natlab.Preset]float64{
		natlab.Linux: 0.60, natlab.PortRestricted: 0.20, natlab.OpenWrt: 0.15, natlab.LinuxAccept: 0.05,
	})
	add(carrier*v[fixedSymmetric], map[natlab.Preset]float64{natlab.CGNATBlock: 1})
	add(carrier*(1-v[fixedSymmetric]), map[natlab.Preset]float64{natlab.CGNAT: 1})
	add(mobile*(1-v[mobileCarrier]), map[natlab.Preset]float64{natlab.Firewall: 1})
	add(mobile*v[mobileCarrier]*v[mobileSymmetric], map[natlab.Preset]float64{natlab.SymmetricRandom: 1})
	add(mobile*v[mobileCarrier]*(1-v[mobileSymmetric]), map[natlab.Preset]float64{natlab.FullCone: easy, natlab.PortRestricted: 1 - easy})
	return w
}

// Population is the likeliest one, the commonest NAT first.
func Population() []Weight {
	var out []Weight
	for p, s := range weigh(middle()) {
		out = append(out, Weight{p, s})
	}
	slices.SortFunc(out, func(a, b Weight) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Preset, b.Preset))
	})
	return out
}

func middle() (v []float64) {
	for _, a := range Assumptions() {
		v = append(v, a.Mid)
	}
	return v
}

// Score says how often two people of the population connect directly.
type Score struct {
	// Share is of the likeliest population; Low and High are the least and the
	// most that the assumptions allow, all of them varied together.
	Share float64 `json:"share"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// Effects are how far each assumption alone moves the share.
	Effects []Effect `json:"effects"`
}

// Effect is what one assumption does: the shares at its low and its high value.
type Effect struct {
	Text string  `json:"text"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// ScoreOf weighs the share of direct punches of each pair, of the NAT that asks and
// the one that is asked. The error names a preset of which there is no share.
func ScoreOf(share func(a, b natlab.Preset) (float64, bool)) (Score, error) {
	for _, a := range Population() {
		for _, b := range Population() {
			if _, ok := share(a.Preset, b.Preset); !ok {
				return Score{}, fmt.Errorf("the population needs %s with %s", a.Preset, b.Preset)
			}
		}
	}
	value := func(v []float64) float64 {
		w := weigh(v)
		presets := slices.Sorted(maps.Keys(w)) // a sum depends on the order
		sum := 0.0
		for _, a := range presets {
			for _, b := range presets {
				s, _ := share(a, b)
				sum += w[a] * w[b] * s
			}
		}
		return sum
	}
	all := Assumptions()
	s := Score{Share: value(middle())}
	s.Low, s.High = s.Share, s.Share
	for corner := range 1 << assumptions {
		v := make([]float64, assumptions)
		for i, a := range all {
			v[i] = a.Low
			if corner>>i&1 == 1 {
				v[i] = a.High
			}
		}
		x := value(v)
		s.Low, s.High = min(s.Low, x), max(s.High, x)
	}
	for i, a := range all {
		low, high := middle(), middle()
		low[i], high[i] = a.Low, a.High
		s.Effects = append(s.Effects, Effect{a.Text, value(low), value(high)})
	}
	return s, nil
}
