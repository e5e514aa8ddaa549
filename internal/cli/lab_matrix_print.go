package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"bodkin/internal/matrix"
	"bodkin/natlab"
)

// pairLine is a line of `bodkin lab matrix --json`.
type pairLine struct {
	Kind    string          `json:"kind"` // pair
	A       natlab.Preset   `json:"a"`    // who asks
	B       natlab.Preset   `json:"b"`    // who is asked
	Runs    int             `json:"runs"`
	Direct  int             `json:"direct"`
	Median  float64         `json:"median_ms,omitempty"`
	P99     float64         `json:"p99_ms,omitempty"`
	Limit   float64         `json:"limit_ms"` // RTT(A,S) + RTT(A,B)
	Packets float64         `json:"packets"`
	Relayed float64         `json:"relayed_bytes"`
	Why     []matrix.Reason `json:"why,omitempty"`
}

// matrixLine is the last one.
type matrixLine struct {
	Kind   string        `json:"kind"` // matrix
	Bed    string        `json:"bed"`
	Runs   int           `json:"runs"`
	Seed   uint64        `json:"seed"`
	Pairs  int           `json:"pairs"`
	Always int           `json:"always"` // pairs that were direct in every run
	Never  int           `json:"never"`
	Direct float64       `json:"direct"` // share of all runs
	Score  *matrix.Score `json:"population,omitempty"`
}

func (a *app) printMatrix(r matrixResult) error {
	sum := matrixLine{Kind: "matrix", Bed: r.bed, Runs: r.grid.Runs, Seed: r.seed, Pairs: len(r.cells), Score: r.score}
	var lines []pairLine
	for _, c := range r.cells {
		s := c.Summary()
		limit, err := matrix.LimitOf(r.grid.Config(c.A, c.B, 0).Topology)
		if err != nil {
			return err
		}
		lines = append(lines, pairLine{
			Kind: "pair", A: c.A, B: c.B, Runs: s.Runs, Direct: s.Direct,
			Median: milliseconds(s.Median), P99: milliseconds(s.P99), Limit: milliseconds(limit),
			Packets: tenths(s.Packets), Relayed: math.Round(s.Relayed), Why: s.Why,
		})
		sum.Direct += s.Share() / float64(len(r.cells))
		switch s.Direct {
		case s.Runs:
			sum.Always++
		case 0:
			sum.Never++
		}
	}
	if a.json {
		out := json.NewEncoder(a.out)
		for _, l := range lines {
			if err := out.Encode(l); err != nil {
				return err
			}
		}
		return out.Encode(sum)
	}
	var text strings.Builder
	listPairs(&text, lines)
	drawGrid(&text, r)
	_, _ = fmt.Fprintf(&text, "\n%.1f %% of all runs were direct; of %s, %d in every run and %d in none.\n",
		100*sum.Direct, count(sum.Pairs, "pair"), sum.Always, sum.Never)
	if r.score != nil {
		explain(&text, *r.score)
	}
	_, err := io.WriteString(a.out, text.String())
	return err
}

func tenths(x float64) float64 { return math.Round(x*10) / 10 }

// listPairs is a line a pair.
func listPairs(w io.Writer, lines []pairLine) {
	line := func(a, b, direct, median, p99, packets, relayed, why string) {
		text := fmt.Sprintf("%-21s %-21s %6s %9s %9s %8s %9s  %s", a, b, direct, median, p99, packets, relayed, why)
		_, _ = fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	line("ASKS", "IS ASKED", "DIRECT", "MEDIAN", "P99", "PACKETS", "RELAYED", "WHY NOT")
	for _, l := range lines {
		median, p99, why := "-", "-", ""
		if l.Direct > 0 {
			median, p99 = fmt.Sprintf("%.1f ms", l.Median), fmt.Sprintf("%.1f ms", l.P99)
		}
		if len(l.Why) > 0 {
			why = l.Why[0].Text
		}
		line(string(l.A), string(l.B), percent(l.Direct, l.Runs)+" %", median, p99,
			fmt.Sprintf("%.1f", l.Packets), size(uint64(l.Relayed)), why)
	}
}

// drawGrid is the matrix itself: rows ask, columns are asked.
func drawGrid(w io.Writer, r matrixResult) {
	_, _ = fmt.Fprintf(w, "\nDirect, in %%. Rows ask, columns are asked.\n\n%26s", "")
	for i := range r.grid.Presets {
		_, _ = fmt.Fprintf(w, "%4d", i+1)
	}
	for i, c := range r.cells {
		if n := len(r.grid.Presets); i%n == 0 {
			_, _ = fmt.Fprintf(w, "\n%4d %-21s", i/n+1, c.A)
		}
		s := c.Summary()
		_, _ = fmt.Fprintf(w, "%4s", percent(s.Direct, s.Runs))
	}
	_, _ = fmt.Fprintln(w)
}

// percent is a share for people, never 0 or 100 where it is not exactly that.
func percent(n, of int) string {
	p := int(math.Round(100 * float64(n) / float64(max(of, 1))))
	switch {
	case n > 0 && n < of:
		p = min(max(p, 1), 99)
	case n == 0:
		p = 0
	}
	return fmt.Sprint(p)
}

// explain shows the population's score.
func explain(w io.Writer, s matrix.Score) {
	_, _ = fmt.Fprintf(w, "\nTwo people on the Internet connect directly in %.1f %% of cases; what is uncertain moves\nthat from %.1f %% to %.1f %%:\n\n",
		100*s.Share, 100*s.Low, 100*s.High)
	for i, a := range matrix.Assumptions() {
		_, _ = fmt.Fprintf(w, "  %-69s%5.1f %% (%.3g to %.3g)  %.1f to %.1f %%\n",
			a.Text, 100*a.Mid, 100*a.Low, 100*a.High, 100*s.Effects[i].Low, 100*s.Effects[i].High)
	}
	_, _ = fmt.Fprintln(w, "\nThe last column is what one assumption does alone. docs/nat-matrix.md has the sources.")
}
