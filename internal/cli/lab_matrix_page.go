package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bodkin/internal/matrix"
	"bodkin/internal/matrix/page"
	"bodkin/internal/matrix/trace"
)

// writePage does some runs once more, to record their packets, and writes the page.
func (a *app) writePage(ctx context.Context, r matrixResult, to *outputFile) error {
	p := a.newProgress("pairs recorded")
	defer p.end()
	n := len(r.grid.Presets)
	report := page.Report{Command: r.command, Facts: r.facts(), Cells: make([][]*page.Cell, n)}
	for _, preset := range r.grid.Presets {
		report.Names = append(report.Names, page.Name{Name: string(preset), Text: preset.Text()})
	}
	for i, c := range r.cells {
		cell, err := r.pageCell(ctx, c)
		if err != nil {
			return err
		}
		report.Cells[i/n] = append(report.Cells[i/n], cell)
		p.done(i+1, len(r.cells))
	}
	return errors.Join(report.Write(to), to.keep())
}

// facts are the lines of the page's head.
func (r matrixResult) facts() []page.Fact {
	facts := []page.Fact{
		{Term: "bed", Text: r.bed},
		{Term: "runs", Text: fmt.Sprintf("%d a pair, each with %v to become direct", r.grid.Runs, r.timeout)},
		{Term: "one-way delays", Text: fmt.Sprintf("home A %v, home B %v, server %v", r.delayA, r.delayB, r.delayS)},
		{Term: "loss", Text: fmt.Sprintf("%g %% on each home's link, each way", 100*r.loss)},
		{Term: "seed", Text: fmt.Sprint(r.seed)},
	}
	if s := r.score; s != nil {
		facts = append(facts, page.Fact{Term: "two people on the Internet", Text: fmt.Sprintf(
			"connect directly in %.1f %% of cases (%.1f to %.1f %%)", 100*s.Share, 100*s.Low, 100*s.High)})
	}
	return facts
}

func (r matrixResult) pageCell(ctx context.Context, c matrix.Cell) (*page.Cell, error) {
	s := c.Summary()
	out := &page.Cell{Runs: s.Runs, Times: c.Times(), Packets: s.Packets, Relayed: s.Relayed}
	var err error
	if out.Limit, err = matrix.LimitOf(r.grid.Config(c.A, c.B, 0).Topology); err != nil {
		return nil, err
	}
	for _, w := range s.Why {
		out.Why = append(out.Why, page.Count{Text: w.Text, Times: w.Times})
	}
	if r.bed == bedKernel {
		return out, nil // the kernel does not tell what its NAT does
	}
	for _, n := range c.Shown() {
		cfg := r.grid.Config(c.A, c.B, n)
		rec := trace.NewRecorder(cfg.Topology)
		result, err := r.grid.Again(ctx, cfg, rec.Observe)
		if err != nil {
			return nil, err
		}
		outcome := result.String()
		if r.bed != bedSim { // there no run is like another
			outcome = "a further run, for its packets: " + outcome
		}
		out.Kept = append(out.Kept, page.Run{Number: n + 1, Direct: result.Direct, Outcome: outcome, Trace: rec.Trace()})
	}
	return out, nil
}

// outputFile is a file that is there once it is whole. A nil one, for no name, does
// nothing.
type outputFile struct {
	*os.File        // under another name until then
	target   string // its name
	kept     bool
}

func newOutputFile(name string) (*outputFile, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // no file is wanted
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+strings.TrimPrefix(filepath.Base(name), ".")+"-*")
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		err = fmt.Errorf("%s: %w", name, path.Err) // not of the name until then
	}
	if err != nil {
		return nil, err
	}
	return &outputFile{File: f, target: name}, nil
}

// keep gives the file its name.
func (o *outputFile) keep() error {
	o.kept = true
	if err := errors.Join(o.Chmod(0o644), o.Close()); err != nil {
		return errors.Join(err, os.Remove(o.Name()))
	}
	return os.Rename(o.Name(), o.target)
}

// abandon removes a file that was not kept.
func (o *outputFile) abandon() {
	if o != nil && !o.kept {
		_ = o.Close()
		_ = os.Remove(o.Name())
	}
}
