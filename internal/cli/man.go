package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is for those who package bodkin.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages",
		Long:   "Write a manual page for each command into a folder, made if need be.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			if err := writePages(c.Root(), args[0]); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(args[0], "bodkin-config.5"), []byte(configPage()), 0o644)
		},
	}
}

// writePages writes the page of a command, and those below it.
func writePages(c *cobra.Command, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(manPage(c)), 0o644); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "completion" {
			continue
		}
		if err := writePages(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

// configPage is the manual page of the configuration file.
func configPage() string {
	var b strings.Builder
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	put(".TH BODKIN\\-CONFIG 5 \"\" \"bodkin %s\" \"File Formats\"", roff(version().Version))
	put(".SH NAME\nbodkin\\-config \\- %s", roff(strings.ToLower(configTopic().Short[:1])+configTopic().Short[1:]))
	put(".SH DESCRIPTION")
	putText(put, configHelp)
	put(".SH SEE ALSO\n.BR bodkin (1)")
	return b.String()
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage is a command's manual page, in the man macros of troff.
func manPage(c *cobra.Command) string {
	var b strings.Builder
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	put(".TH %s 1 \"\" \"bodkin %s\" \"User Commands\"", roff(strings.ToUpper(pageName(c))), roff(version().Version))
	put(".SH NAME\n%s \\- %s", roff(pageName(c)), roff(c.Short))
	put(".SH SYNOPSIS\n.B %s", roff(c.UseLine()))
	put(".SH DESCRIPTION")
	putText(put, c.Long)
	putCommands(put, c)
	put(".SH OPTIONS\nEach can be given in the environment, too: its variable stands beside it.")
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) { putFlag(put, f) })
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { putFlag(put, f) })
	if c.Example != "" {
		put(".SH EXAMPLES")
		putText(put, c.Example)
	}
	put(".SH EXIT STATUS")
	_, codes, _ := strings.Cut(exitCodes, "\n\n")
	putText(put, codes)
	if c.HasParent() {
		put(".SH SEE ALSO\n.BR %s (1)", roff(pageName(c.Parent())))
	}
	return b.String()
}

// putCommands puts what there is below a command: pages of their own, and, where a
// topic is one, its text.
func putCommands(put func(string, ...any), c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	put(".SH COMMANDS")
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" && sub.Name() != "help" {
			put(".TP\n.BR %s (1)\n%s", roff(pageName(sub)), roff(sub.Short))
		}
	}
}

func putFlag(put func(string, ...any), f *pflag.Flag) {
	if f.Name == "help" || f.Hidden {
		return
	}
	value, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && f.DefValue != "0s" {
		usage += " (default: " + f.DefValue + ")"
	}
	put(".TP\n.B %s\n%s; %s", roff(strings.TrimSpace(name+" "+value)), roff(usage), envName(f.Name))
}

// putText puts paragraphs; one whose lines are indented stays as it is.
func putText(put func(string, ...any), text string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(p, " ") {
			put(".PP\n.nf\n%s\n.fi", roff(p))
			continue
		}
		put(".PP\n%s", roff(p))
	}
}

// roff escapes what troff would take for its own.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
