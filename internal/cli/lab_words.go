package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Beds, as the command line names them.
const (
	bedSim    = "sim"
	bedModel  = "model"
	bedKernel = "kernel"
)

// realBeds are the beds with real kernels.
var realBeds = map[string]netbed.Bed{bedModel: netbed.Model, bedKernel: netbed.Kernel}

// checkBed finds out whether there is such a bed.
func checkBed(name string, beds ...string) error {
	if !slices.Contains(beds, name) {
		return fmt.Errorf("--bed %q: there are: %s", name, strings.Join(beds, ", "))
	}
	return nil
}

// presetOn is a preset by its name, if the bed has it.
func presetOn(bed, name string) (natlab.Preset, error) {
	p := natlab.Preset(name)
	switch {
	case !slices.Contains(natlab.Presets(), p):
		return "", fmt.Errorf("there is no preset %q; `bodkin lab presets` lists them", name)
	case bed == bedKernel && !p.Kernel():
		return "", fmt.Errorf("preset %q is not what Linux can be; there are: %s", name, joined(natlab.KernelPresets()))
	}
	return p, nil
}

func joined(presets []natlab.Preset) string {
	var out []string
	for _, p := range presets {
		out = append(out, string(p))
	}
	return strings.Join(out, ", ")
}

// suggestPreset completes one preset.
func suggestPreset(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return presetsAfter(""), cobra.ShellCompDirectiveNoFileComp
}

// suggestPresets completes presets with commas between them.
func suggestPresets(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	return presetsAfter(before), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func presetsAfter(typed string) (out []cobra.Completion) {
	for _, p := range natlab.Presets() {
		out = append(out, cobra.CompletionWithDesc(typed+string(p), p.Text()))
	}
	return out
}

// suggest sets what a flag completes to.
func suggest(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // there is no such flag
	}
}

// suggestBeds completes --bed.
func suggestBeds(c *cobra.Command, beds ...string) {
	suggest(c, "bed", cobra.FixedCompletions(beds, cobra.ShellCompDirectiveNoFileComp))
}

// linkFlags are what happens on the links of a lab of two homes.
type linkFlags struct {
	delayA, delayB, delayS time.Duration
	insideA, insideB       time.Duration
	jitter                 time.Duration
	loss                   float64
	ipv6                   bool
}

func (l *linkFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&l.delayA, "delay-a", 20*time.Millisecond, "one-way delay of home A's access link")
	f.DurationVar(&l.delayB, "delay-b", 30*time.Millisecond, "one-way delay of home B's access link")
	f.DurationVar(&l.delayS, "delay-s", 10*time.Millisecond, "one-way delay of the server's link")
	f.DurationVar(&l.insideA, "inside-a", 0, "one-way delay inside home A, before its NAT")
	f.DurationVar(&l.insideB, "inside-b", 0, "one-way delay inside home B, before its NAT")
	f.DurationVar(&l.jitter, "jitter", 0, "additional delay of the homes' links, at random up to this")
	f.Float64Var(&l.loss, "loss", 0, "share of packets lost on the homes' links, each way, 0 to 1")
	f.BoolVar(&l.ipv6, "ipv6", false, "give everything IPv6 as well, filtered and not translated")
}

func (l *linkFlags) check() error {
	if !(l.loss >= 0 && l.loss < 1) {
		return fmt.Errorf("--loss %v: it is a share of 1, such as 0.1", l.loss)
	}
	for _, d := range []time.Duration{l.delayA, l.delayB, l.delayS, l.insideA, l.insideB, l.jitter} {
		if d < 0 {
			return errors.New("a delay cannot be negative")
		}
	}
	return nil
}

// options are natlab's. A delay of 0 means the default there; a microsecond is none.
func (l *linkFlags) options() natlab.Options {
	return natlab.Options{
		DelayA: max(l.delayA, time.Microsecond), DelayB: max(l.delayB, time.Microsecond), DelayS: max(l.delayS, time.Microsecond),
		InsideA: l.insideA, InsideB: l.insideB, Jitter: l.jitter, Loss: l.loss, IPv6: l.ipv6,
	}
}
