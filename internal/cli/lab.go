package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bodkin"
	"bodkin/internal/labrun"
	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"github.com/spf13/cobra"
)

type labFlags struct {
	linkFlags
	file             string
	presetA, presetB string
	runs             int
	transports       []string
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
	n.StringVar(&f.file, "file", "", "`FILE` to move (default: this program itself; with --loss its first 256 KiB)")
	n.StringVar(&f.presetA, "preset-a", string(natlab.Linux), presetHelp("A"))
	n.StringVar(&f.presetB, "preset-b", string(natlab.Linux), presetHelp("B"))
	n.IntVar(&f.runs, "runs", 0, "do it this often again, with fresh nodes and 256 KiB, and show the spread")
	addTransports(c, &f.transports, "default: all")
	f.add(n)
	c.AddCommand(a.labPresetsCommand(), a.labMatrixCommand(), a.labRunCommand())
	return c
}

// addTransports adds the flag that says by what to punch in a lab.
func addTransports(c *cobra.Command, to *[]string, otherwise string) {
	c.Flags().StringSliceVar(to, "transports", nil, "`LIST` of the kinds of holes to punch, of: "+strings.Join(bodkin.Transports(), ", ")+" ("+otherwise+")")
	suggest(c, "transports", cobra.FixedCompletions(bodkin.Transports(), cobra.ShellCompDirectiveNoFileComp))
}

func checkTransports(words []string) error {
	for _, t := range words {
		if !slices.Contains(bodkin.Transports(), t) {
			return fmt.Errorf("--transports: no transport %q; there are: %s", t, strings.Join(bodkin.Transports(), ", "))
		}
	}
	return nil
}

func presetHelp(home string) string {
	return fmt.Sprintf("`PRESET` of the NAT of home %s, of: %v", home, natlab.KernelPresets())
}

func (f labFlags) check() error {
	if err := f.linkFlags.check(); err != nil {
		return err
	}
	for _, name := range []string{f.presetA, f.presetB} {
		if _, err := presetOn(bedKernel, name); err != nil {
			return err
		}
	}
	if err := checkTransports(f.transports); err != nil {
		return err
	}
	if f.runs < 0 {
		return fmt.Errorf("--runs %d: it is a number of runs", f.runs)
	}
	if f.file != "" {
		if info, err := os.Stat(f.file); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("--file %s: not a regular file that can be read", f.file)
		}
	}
	return nil
}

func (a *app) lab(ctx context.Context, f labFlags) error {
	o := f.options()
	o.PresetA, o.PresetB = natlab.Preset(f.presetA), natlab.Preset(f.presetB)
	r, err := labrun.Run(ctx, labrun.Config{
		Options: o,
		File:    f.file, Runs: f.runs, Transports: f.transports, Out: a.out, JSON: a.json, Verbose: a.verbose, Log: a.err,
	})
	if err != nil {
		return err
	}
	if !r.OK {
		return &codeError{codeFailed, errors.New(r.Why)}
	}
	return nil
}
