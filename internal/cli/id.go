package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) idCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "id",
		Short:   "Print this node's peer ID",
		Long:    "Print this node's peer ID, the name by which others reach it. The node key is made at first use.",
		Example: "  bodkin id\n  bodkin id --key other.key",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			key, err := a.loadKey()
			if err != nil {
				return err
			}
			return a.print(map[string]any{"id": key.ID()}, "%s", key.ID())
		},
	}
	a.addKeyFlag(c)
	return c
}
