package cli

import (
	"bodkin/internal/app/pipe"

	"github.com/spf13/cobra"
)

func (a *app) dialCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dial PEER [SERVICE]",
		Short: "Connect standard input and output to a peer",
		Long: `Connect standard input and output to a service of a peer that listens, as netcat
would. The end of the input ends that direction, and the command ends when both
directions have; with a terminal as its input, when the peer has ended its own.
SERVICE is "pipe" if it is not given, as for listen.

As ssh's ProxyCommand, with 'bodkin listen --keep --exec "/usr/sbin/sshd -i" ssh'
at the other end:

  ssh -o ProxyCommand='bodkin dial PEER ssh' user@home`,
		Example: "  bodkin dial PEER < file\n  bodkin dial PEER chat",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := a.peer(args[0])
			if err != nil {
				return err
			}
			name, err := service(args[1:])
			if err != nil {
				return err
			}
			n, err := a.open(c.Context())
			if err != nil {
				return err
			}
			conn, err := n.Dial(c.Context(), id, name)
			if err != nil {
				return end(c.Context(), n, err)
			}
			return end(c.Context(), n, pipe.Run(c.Context(), conn, a.streams()))
		},
	}
	a.addNodeFlags(c)
	return c
}
