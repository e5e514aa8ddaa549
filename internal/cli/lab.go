package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bodkin/internal/labrun"
	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"github.com/spf13/cobra"
)

type labFlags struct {
	file                   string
	delayA, delayB, delayS time.Duration
	insideA, insideB       time.Duration
	jitter                 time.Duration
	loss                   float64
	presetA, presetB       string
	ipv6                   bool
	runs                   int
}

func (a *app) labCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use:   "lab",
		Short: "See it work: two homes, one server, a hole opens",
		Long: `Build a network of two homes behind NATs and a server on this machine, run serve,
listen and dial in it, move a file from home A to home B, and show what happens.
The NATs are the kernel's own, in network namespaces; nothing outside of them is
touched, and nothing is left. It ends with 1 when no hole opened or the file
differs.`,
		Example: "  bodkin lab\n  bodkin lab --loss 0.1 --file big.iso",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return &codeError{codeUsage, err}
			}
			if err := netbed.Enter(); err != nil {
				return err
			}
			return a.lab(c.Context(), f)
		},
	}
	n := c.Flags()
	n.StringVar(&f.file, "file", "", "file to move (default: this program itself; with --loss its first 256 KiB)")
	n.DurationVar(&f.delayA, "delay-a", 20*time.Millisecond, "one-way delay of home A's access link")
	n.DurationVar(&f.delayB, "delay-b", 30*time.Millisecond, "one-way delay of home B's access link")
	n.DurationVar(&f.delayS, "delay-s", 10*time.Millisecond, "one-way delay of the server's link")
	n.DurationVar(&f.insideA, "inside-a", 0, "one-way delay inside home A, before its NAT")
	n.DurationVar(&f.insideB, "inside-b", 0, "one-way delay inside home B, before its NAT")
	n.DurationVar(&f.jitter, "jitter", 0, "additional delay of the homes' links, at random up to this")
	n.Float64Var(&f.loss, "loss", 0, "share of packets lost on the homes' links, each way, 0 to 1")
	n.StringVar(&f.presetA, "preset-a", string(natlab.Linux), presetHelp("A"))
	n.StringVar(&f.presetB, "preset-b", string(natlab.Linux), presetHelp("B"))
	n.BoolVar(&f.ipv6, "ipv6", false, "give everything IPv6 as well, filtered and not translated")
	n.IntVar(&f.runs, "runs", 0, "do it this often again, with fresh nodes and 256 KiB, and show the spread")
	c.AddCommand(a.labPresetsCommand(), a.labMatrixCommand(), a.labRunCommand())
	return c
}

func presetHelp(home string) string {
	return fmt.Sprintf("NAT of home %s, of: %v", home, natlab.KernelPresets())
}

func (f labFlags) check() error {
	if f.loss < 0 || f.loss >= 1 {
		return fmt.Errorf("--loss %v: it is a share of 1, such as 0.1", f.loss)
	}
	if f.runs < 0 {
		return fmt.Errorf("--runs %d: it is a number of runs", f.runs)
	}
	for _, d := range []time.Duration{f.delayA, f.delayB, f.delayS, f.insideA, f.insideB, f.jitter} {
		if d < 0 {
			return errors.New("a delay cannot be negative")
		}
	}
	if f.file != "" {
		if info, err := os.Stat(f.file); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("--file %s: not a regular file that can be read", f.file)
		}
	}
	return nil
}

func (a *app) lab(ctx context.Context, f labFlags) error {
	r, err := labrun.Run(ctx, labrun.Config{
		Options: natlab.Options{
			// A delay of 0 means the default there; a microsecond is none.
			DelayA: max(f.delayA, time.Microsecond), DelayB: max(f.delayB, time.Microsecond), DelayS: max(f.delayS, time.Microsecond),
			InsideA: f.insideA, InsideB: f.insideB, Jitter: f.jitter, Loss: f.loss,
			PresetA: natlab.Preset(f.presetA), PresetB: natlab.Preset(f.presetB), IPv6: f.ipv6,
		},
		File: f.file, Runs: f.runs, Out: a.out, JSON: a.json, Verbose: a.verbose, Log: a.err,
	})
	if err != nil {
		return err
	}
	if !r.OK {
		return &codeError{codeFailed, errors.New(r.Why)}
	}
	return nil
}
