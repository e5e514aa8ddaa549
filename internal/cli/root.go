// Package cli is the command line, a file a command.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"bodkin/internal/config"

	"github.com/spf13/cobra"
)

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	verbose  bool
	node     nodeFlags
	begun    bool // the command line was understood

	reloads    atomic.Bool // SIGHUP is not to end us
	configFlag string
	fileRead   atomic.Pointer[config.Config] // see file
	given      []string                      // settings that the command line or the environment has
}

const longHelp = `bodkin opens a direct, encrypted connection between two machines that both sit
behind NATs or firewalls, with the help of one small server that anyone can run.

  server$ bodkin serve --public my.host         prints the URL of the server
  home-b$ bodkin listen --server URL            prints the peer ID of this machine
  home-a$ bodkin dial --server URL PEER         connects; type, or pipe a file

Every flag can be given in the environment too: --server as BODKIN_SERVER,
--relay-rate as BODKIN_RELAY_RATE, a list with commas; those of a node in the
configuration file as well: see bodkin help config. A flag wins over its variable,
and that over the file. Keys are made at first use, in the configuration folder.
Peers are named by their IDs, or as in the address book: see bodkin peer, and to
fill it by a code bodkin invite. Logs go to standard error. See also:
bodkin help exit-codes`

// Main runs the command line and returns the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	a := &app{in: in, out: out, err: errOut}
	// A terminal that is closed ends us, and ssh its ProxyCommand; nohup does not
	// want that, and a daemon reads its file again.
	if !signal.Ignored(syscall.SIGHUP) {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		go func() {
			for range hangups {
				if !a.reloads.Load() {
					hangUp()
				}
			}
		}()
	}
	// A closed standard output would kill us where we stand, with things to clean
	// up. (Ignoring the signal would be passed on to commands that we run.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return a.run(ctx, args)
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&app{in: in, out: out, err: errOut}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.begun {
		err = &codeError{codeUsage, err}
	}
	code := codeOf(err)
	if err != nil && ctx.Err() != nil {
		code = codeInterrupted
	}
	if err != nil && code != codeInterrupted && code != codeBrokenPipe && !said(err) {
		a.say("bodkin: %s", strings.TrimPrefix(err.Error(), "bodkin: "))
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "bodkin",
		Short:         "Connect two machines behind NATs, directly",
		Long:          longHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			a.noteGiven(c.Flags())
			err := fromEnvironment(c.Flags())
			if err == nil {
				err = a.fromFile(c.Flags())
			}
			a.begun = err == nil
			return err
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`", flagError(err), c.CommandPath())
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON for programs, one object a line")
	root.PersistentFlags().StringVar(&a.configFlag, "config", "", "`FILE` with settings and the address book (default: bodkin/config.toml in the configuration folder)")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to standard error")
	root.AddCommand(
		a.serveCommand(), a.upCommand(), a.idCommand(), a.peerCommand(), a.inviteCommand(), a.joinCommand(), a.listenCommand(),
		a.dialCommand(), a.forwardCommand(),
		a.servePortCommand(), a.sendCommand(), a.receiveCommand(), a.pingCommand(),
		a.checkCommand(), a.whyCommand(), a.statusCommand(), a.mapCommand(), a.labCommand(), a.versionCommand(), a.manCommand(),
		configTopic(), exitCodesTopic(),
	)
	for _, c := range root.Commands() {
		hint(c)
		a.complete(c)
	}
	return root
}

// hint lets errors about arguments say where to look.
func hint(c *cobra.Command) {
	if c.Args != nil {
		c.Args = withHint(c.Args)
	}
	for _, sub := range c.Commands() {
		hint(sub)
	}
}

// withHint adds to errors about arguments where to look.
func withHint(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())
		}
		return nil
	}
}

func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// say prints to standard error, for people.
func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.err, format+"\n", args...) }

// sayJSON prints to standard error, for programs.
func (a *app) sayJSON(value any) { _ = json.NewEncoder(a.err).Encode(value) }

// printJSON prints a value for programs.
func printJSON(w io.Writer, value any) error { return json.NewEncoder(w).Encode(value) }

// print prints a result: the text, or with --json the value.
func (a *app) print(value any, format string, args ...any) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(value)
	}
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}
