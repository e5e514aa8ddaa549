// Package cli is the command line, a file a command.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	verbose  bool
	node     nodeFlags
}

const longHelp = `bodkin opens a direct, encrypted connection between two machines that both sit
behind NATs or firewalls, with the help of one small server that anyone can run.

  server$ bodkin serve --public my.host         prints the URL of the server
  home-b$ bodkin listen --server URL            prints the peer ID of this machine
  home-a$ bodkin dial --server URL PEER         connects; type, or pipe a file

Every flag can be given in the environment too: --server as BODKIN_SERVER,
--relay-rate as BODKIN_RELAY_RATE. A flag wins over its variable. Logs go to
standard error. See also: bodkin help exit-codes`

// Main runs the command line and returns the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, in, out, errOut)
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	coded, ok := errors.AsType[*codeError](err)
	said := ok && coded.err == nil
	if err != nil && !said && ctx.Err() == nil {
		_, _ = fmt.Fprintf(errOut, "bodkin: %v\n", err)
	}
	if ctx.Err() != nil && err != nil {
		return codeInterrupted
	}
	return codeOf(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "bodkin",
		Short:             "Connect two machines behind NATs, directly",
		Long:              longHelp,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return fromEnvironment(c.Flags()) },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &codeError{codeUsage, fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON for programs, one object a line")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to standard error")
	root.AddCommand(
		a.serveCommand(), a.idCommand(), a.listenCommand(), a.dialCommand(), a.pingCommand(),
		a.statusCommand(), a.labCommand(), a.versionCommand(), exitCodesTopic(),
	)
	for _, c := range root.Commands() {
		if c.Args != nil {
			c.Args = usageArgs(c.Args)
		}
	}
	return root
}

// usageArgs gives errors about arguments their exit code, and a hint.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &codeError{codeUsage, fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
		}
		return nil
	}
}

// envName is the variable of a flag.
func envName(flag string) string {
	return "BODKIN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that were not given from their variables.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(envName(f.Name))
		if !ok || f.Changed || f.Name == "help" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, &codeError{codeUsage, fmt.Errorf("%s: %w", envName(f.Name), err)})
		}
	})
	return errors.Join(errs...)
}

func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// say prints to standard error, for people.
func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.err, format+"\n", args...) }

// print prints a result: the text, or with --json the value.
func (a *app) print(value any, format string, args ...any) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(value)
	}
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}
