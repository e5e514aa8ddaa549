package cli

import (
	"slices"
	"strings"

	"bodkin"
	"bodkin/internal/app/share"
	"bodkin/natlab"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fileFlags are the flags that name files, or programs.
var fileFlags = []string{"config", "key", "events", "file", "exec", "html", "tls-cert", "tls-key", "pcap", "output"}

// complete says what a shell may suggest for a command: values where there is a
// choice, files where files are meant, and nothing for what only the user knows.
func (a *app) complete(c *cobra.Command) {
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = a.completeArgs
	}
	var presets []string
	for _, p := range natlab.Presets() {
		presets = append(presets, string(p))
	}
	choices := map[string][]string{
		"transports": bodkin.Transports(),
		"server-via": {bodkin.ViaUDP, bodkin.ViaTCP, bodkin.ViaTLS, bodkin.ViaICMP},
		"preset-a":   presets,
		"preset-b":   presets,
		"relay":      {relayAuto, relayNever},
		"overwrite":  share.Rules(),
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		suggest := cobra.NoFileCompletions
		if choice := choices[f.Name]; choice != nil {
			suggest = cobra.FixedCompletions(choice, cobra.ShellCompDirectiveNoFileComp)
		} else if value, _ := pflag.UnquoteUsage(f); value == "PEER" {
			suggest = a.bookNames
		} else if slices.Contains(fileFlags, f.Name) {
			return
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, suggest) // fails where the command has its own
	})
	for _, sub := range c.Commands() {
		a.complete(sub)
	}
}

// completeArgs suggests names of the address book where the usage says PEER.
func (a *app) completeArgs(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if words := strings.Fields(c.Use); len(args)+1 < len(words) && words[len(args)+1] == "PEER" {
		return a.bookNames(c, nil, typed)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
