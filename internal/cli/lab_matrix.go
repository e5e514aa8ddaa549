package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bodkin/internal/matrix"
	"bodkin/internal/matrix/bed"
	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type matrixFlags struct {
	linkFlags
	bed        string
	presets    []string
	runs       int
	seed       uint64
	timeout    time.Duration
	html       string
	transports []string
	population bool
}

func (a *app) labMatrixCommand() *cobra.Command {
	var f matrixFlags
	c := &cobra.Command{
		Use:   "matrix",
		Short: "Punch holes between all pairs of NATs, and count",
		Long: `Punch holes between all pairs of NATs, and show how often that worked, after what
time, and what it cost. Pairs are ordered: the first asks, the second is asked.

On the bed "sim", everything runs in virtual time: thousands of runs in seconds,
the same for the same seed. On "model" and "kernel", real nodes run in network
namespaces and in real time; with "kernel", Linux itself is the NAT.

  direct    share of the runs in which both sides sent through a hole in time
  median    time from the dial until the asker did, of those runs; p99 likewise
  packets   what both sides sent to open the hole, on average
  relayed   what the server relayed meanwhile, of 50 packets of 1000 bytes a second

With --html it also writes a page: a heat map, and behind each pair the times of
its runs and the packets of one that worked and one that did not.

It ends with 0 when all runs were done, whatever came of them, and with 1 when
they could not be.`,
		Example: `  bodkin lab matrix
  bodkin lab matrix --presets linux,symmetric-random --runs 100 --loss 0.2
  bodkin lab matrix --html matrix.html --population
  bodkin lab matrix --bed kernel --presets linux,openwrt --runs 3`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			g, err := f.grid()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			if f.bed != bedSim {
				if err := netbed.Enter(); err != nil {
					return err
				}
			}
			return a.labMatrix(c.Context(), f, g, commandLine(c))
		},
	}
	n := c.Flags()
	n.StringVar(&f.bed, "bed", bedSim, "`BED` to run on: sim, model or kernel")
	n.StringSliceVar(&f.presets, "presets", nil, "`PRESETS` with commas between them (default: all that the bed has)")
	n.IntVar(&f.runs, "runs", 0, "runs of each pair (default: 20; with real nodes 3)")
	n.Uint64Var(&f.seed, "seed", 1, "chance; the same seed gives the same results on the bed sim")
	n.DurationVar(&f.timeout, "timeout", 12*time.Second, "time that a run has to become direct")
	n.StringVar(&f.html, "html", "", "`FILE` for a page with all results")
	n.BoolVar(&f.population, "population", false, "also weigh the pairs by how common they are; see docs/nat-matrix.md")
	addTransports(c, &f.transports, "default: all that the bed has; sim has udp")
	f.add(n)
	suggestBeds(c, bedSim, bedModel, bedKernel)
	suggest(c, "presets", suggestPresets)
	return c
}

// grid is what the flags describe.
func (f *matrixFlags) grid() (matrix.Grid, error) {
	if err := errors.Join(f.check(), checkBed(f.bed, bedSim, bedModel, bedKernel)); err != nil {
		return matrix.Grid{}, err
	}
	if f.runs < 0 {
		return matrix.Grid{}, fmt.Errorf("--runs %d: it is a number of runs", f.runs)
	}
	if f.timeout <= 0 {
		return matrix.Grid{}, fmt.Errorf("--timeout %v: a run needs some time", f.timeout)
	}
	if err := f.checkTransports(); err != nil {
		return matrix.Grid{}, err
	}
	g := matrix.Grid{Options: f.options(), Runs: f.runs, Seed: f.seed, Limit: f.timeout, Transports: f.transports}
	if g.Runs == 0 {
		g.Runs = 20
		if f.bed != bedSim {
			g.Runs = 3
		}
	}
	if on, ok := realBeds[f.bed]; ok {
		g.Punch = bed.Punch(on)
	}
	var err error
	if g.Presets, err = f.chosen(); err != nil {
		return g, err
	}
	return g, f.checkPopulation(g.Presets)
}

func (f *matrixFlags) checkTransports() error {
	if err := checkTransports(f.transports); err != nil {
		return err
	}
	for _, t := range f.transports {
		if t != "udp" && f.bed == bedSim {
			return fmt.Errorf("--transports %s: the bed sim has UDP alone; use --bed model or --bed kernel", t)
		}
	}
	return nil
}

// chosen are the presets of the matrix, each once.
func (f *matrixFlags) chosen() ([]natlab.Preset, error) {
	if len(f.presets) == 0 {
		if f.bed == bedKernel {
			return natlab.KernelPresets(), nil
		}
		return natlab.Presets(), nil
	}
	var out []natlab.Preset
	for _, name := range f.presets {
		p, err := presetOn(f.bed, name)
		if err != nil {
			return nil, fmt.Errorf("--presets: %w", err)
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (f *matrixFlags) checkPopulation(presets []natlab.Preset) error {
	if !f.population {
		return nil
	}
	var missing []natlab.Preset
	for _, w := range matrix.Population() {
		if !slices.Contains(presets, w.Preset) {
			missing = append(missing, w.Preset)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("--population also needs the presets %s", joined(missing))
	}
	return nil
}

// commandLine is a command with the flags that it was given, in the order of their
// names.
func commandLine(c *cobra.Command) string {
	out := []string{c.CommandPath()}
	c.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch list, ok := f.Value.(pflag.SliceValue); {
		case ok:
			value = strings.Join(list.GetSlice(), ",")
		case f.Value.Type() == "bool" && value == "true":
			out = append(out, "--"+f.Name)
			return
		}
		if strings.ContainsAny(value, " '\"$\\*?") {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		out = append(out, "--"+f.Name, value)
	})
	return strings.Join(out, " ")
}

// matrixResult is what all output is made of.
type matrixResult struct {
	matrixFlags
	grid    matrix.Grid
	cells   []matrix.Cell
	score   *matrix.Score
	command string
}

func (a *app) labMatrix(ctx context.Context, f matrixFlags, g matrix.Grid, command string) error {
	page, err := newOutputFile(f.html)
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	defer page.abandon()
	p := a.newProgress("runs")
	g.Progress = p.done
	r := matrixResult{matrixFlags: f, grid: g, command: command}
	r.cells, err = g.Run(ctx)
	p.end()
	if err != nil {
		return err
	}
	if f.population {
		if r.score, err = r.weigh(); err != nil {
			return err
		}
	}
	if f.html != "" {
		if err := a.writePage(ctx, r, page); err != nil {
			return fmt.Errorf("--html: %w", err)
		}
	}
	return a.printMatrix(r)
}

// weigh is the population's score.
func (r matrixResult) weigh() (*matrix.Score, error) {
	shares := make(map[[2]natlab.Preset]float64)
	for _, c := range r.cells {
		shares[[2]natlab.Preset{c.A, c.B}] = c.Summary().Share()
	}
	s, err := matrix.ScoreOf(func(a, b natlab.Preset) (float64, bool) {
		share, ok := shares[[2]natlab.Preset{a, b}]
		return share, ok
	})
	return &s, err
}
