package cli

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"bodkin/internal/config"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

// bookEntry is a line of `bodkin peer list --json`.
type bookEntry struct {
	Name string  `json:"name"`
	ID   peer.ID `json:"id"`
}

func (a *app) peerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "peer",
		Short: "Give peers names: the address book",
		Long: `Give peers names, which stand for their IDs wherever a command takes a PEER. The
names are yours: nobody else sees them. They are made of lower-case letters,
digits, '-', '_' and '.', 40 at the most.

The address book is the table [peers] of the configuration file, which can be
changed with an editor, too; what else is in the file stays as it is. It can say
who may connect: see --allow-known of bodkin listen.`,
		Example: "  bodkin peer add laptop ID\n  bodkin peer list\n  bodkin ping laptop",
	}
	c.AddCommand(a.peerAddCommand(), a.peerListCommand(), a.peerRemoveCommand(), a.peerRenameCommand())
	return c
}

func (a *app) peerAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME ID",
		Short: "Give a peer a name",
		Long: `Give a peer a name. ID is what bodkin id prints on the other machine. With --json it
prints an object with name and id.`,
		Example: "  bodkin peer add laptop ajo3fsuksx5z6gvnqbxedas3viust3bpqipn5gd2qusugaz7as7a",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := peer.ParseID(args[1])
			if err != nil {
				if _, swapped := peer.ParseID(args[0]); swapped == nil {
					err = fmt.Errorf("the name comes first: bodkin peer add %s ID", args[1])
				}
				return &codeError{codeUsage, err}
			}
			return a.editBook(func(path string) error { return config.AddPeer(path, args[0], id) },
				bookEntry{args[0], id}, "%s is peer %s", args[0], id)
		},
	}
}

// editBook changes the configuration file and tells what came of it.
func (a *app) editBook(do func(path string) error, value any, format string, args ...any) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	if err := do(path); err != nil {
		return err
	}
	return a.print(value, format, args...)
}

func (a *app) peerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "Show the address book",
		Long:    "Show the names of peers and their IDs. With --json it prints an object a peer, with name and id.",
		Example: "  bodkin peer list\n  bodkin peer list --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.file()
			if err != nil {
				return err
			}
			if a.json {
				for _, name := range c.Names() {
					if err := a.print(bookEntry{name, c.Peers[name]}, ""); err != nil {
						return err
					}
				}
				return nil
			}
			if len(c.Peers) == 0 {
				a.say("the address book is empty; add peers with `bodkin peer add NAME ID`")
				return nil
			}
			w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			for _, name := range c.Names() {
				_, _ = fmt.Fprintf(w, "%s\t%s\n", name, c.Peers[name])
			}
			return w.Flush()
		},
	}
}

func (a *app) peerRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Take peers out of the address book",
		Long: `Take peers out of the address book. A peer that the configuration file forwards to, or
allows something, has to be taken out there first.`,
		Example:           "  bodkin peer rm laptop",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.bookNames,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.editBook(func(path string) error {
				for _, name := range args {
					if err := config.RemovePeer(path, name); err != nil {
						return err
					}
				}
				return nil
			}, map[string]any{"removed": args}, "removed %s", strings.Join(args, ", "))
		},
	}
}

func (a *app) peerRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a peer another name",
		Long: `Give a peer of the address book another name, there and where else the configuration
file names it.`,
		Example: "  bodkin peer rename laptop old-laptop",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.bookNames(c, args, typed)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.editBook(func(path string) error { return config.RenamePeer(path, args[0], args[1]) },
				map[string]any{"old": args[0], "name": args[1]}, "%s is %s now", args[0], args[1])
		},
	}
}

// bookNames suggests the names of the address book, with the beginnings of the IDs.
func (a *app) bookNames(c *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	_ = fromEnvironment(c.Flags()) // nothing has run yet
	if book, err := a.file(); err == nil {
		for _, name := range book.Names() {
			if !slices.Contains(args, name) {
				out = append(out, name+"\t"+book.Peers[name].Short())
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
