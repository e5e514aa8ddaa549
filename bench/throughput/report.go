package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// spread is a figure over all rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(x []float64) spread {
	slices.Sort(x)
	return spread{Median: x[len(x)/2], Min: x[0], Max: x[len(x)-1]}
}

// result is what the rounds of one contender showed.
type result struct {
	Kind      string  `json:"kind"`
	Gbit      spread  `json:"gbit_per_s"` // of the application's bytes
	Ratio     *spread `json:"ratio_to_quic_go,omitempty"`
	CPU       spread  `json:"cpu_s_per_gb"` // both ends, 10^9 bytes
	RoundTrip *spread `json:"round_trip_under_load_ms,omitempty"`
	Packets   *spread `json:"datagrams_per_s,omitempty"` // that arrived
	Loss      *spread `json:"datagram_loss,omitempty"`
}

func results(pairs []*pair) (all []result) {
	var plain, datagrams *pair
	for _, p := range pairs {
		switch p.kind {
		case kindQUIC:
			plain = p
		case kindQUICDatagram:
			datagrams = p
		}
	}
	for _, p := range pairs {
		r := result{Kind: p.kind, Gbit: p.over(gbit)}
		r.CPU = p.over(func(x round) float64 { return x.cpu.Seconds() / (float64(x.bytes) / 1e9) })
		to := plain
		if strings.HasSuffix(p.kind, "datagrams") {
			to = datagrams
			packets := p.over(func(x round) float64 { return float64(x.packets) / x.seconds })
			loss := p.over(func(x round) float64 { return x.loss })
			r.Packets, r.Loss = &packets, &loss
		} else {
			trip := p.over(func(x round) float64 {
				if len(x.trips) == 0 {
					return 0
				}
				return float64(x.trips[len(x.trips)/2].Microseconds()) / 1e3
			})
			r.RoundTrip = &trip
		}
		if to != nil {
			var ratios []float64
			for i, x := range p.rounds {
				ratios = append(ratios, gbit(x)/gbit(to.rounds[i]))
			}
			s := spreadOf(ratios)
			r.Ratio = &s
		}
		all = append(all, r)
	}
	return all
}

func gbit(x round) float64 { return float64(x.bytes) * 8 / x.seconds / 1e9 }

func (p *pair) over(f func(round) float64) spread {
	var x []float64
	for _, r := range p.rounds {
		x = append(x, f(r))
	}
	return spreadOf(x)
}

func print(all []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) }
	line("", "Gbit/s", "ratio to quic-go", "CPU s/GB", "round trip ms", "datagrams/s", "lost %")
	show := func(s *spread, format string, factor float64) string {
		if s == nil {
			return ""
		}
		f := func(x float64) string { return fmt.Sprintf(format, x*factor) }
		return f(s.Median) + " (" + f(s.Min) + "-" + f(s.Max) + ")"
	}
	for _, r := range all {
		line(r.Kind, show(&r.Gbit, "%.2f", 1), show(r.Ratio, "%.2f", 1), show(&r.CPU, "%.2f", 1),
			show(r.RoundTrip, "%.1f", 1), show(r.Packets, "%.0f", 1), show(r.Loss, "%.2f", 100))
	}
	_ = w.Flush()
}
