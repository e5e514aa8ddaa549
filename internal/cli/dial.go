package cli

import (
	"errors"

	"bodkin/internal/app/pipe"

	"github.com/spf13/cobra"
)

// defaultService is what listen and dial mean without a SERVICE.
const defaultService = "pipe"

func service(args []string) string {
	if len(args) == 0 {
		return defaultService
	}
	return args[0]
}

func (a *app) dialCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dial PEER [SERVICE]",
		Short: "Connect standard input and output to a peer",
		Long: `Connect standard input and output to a service of a peer that listens, as netcat
would: the end of the input ends that direction, and the command ends when both
directions have. As ssh's ProxyCommand:

  ssh -o ProxyCommand='bodkin dial PEER ssh' user@home`,
		Example: "  bodkin dial PEER < file\n  bodkin dial PEER ssh",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			n, err := a.open(c.Context())
			if err != nil {
				return err
			}
			conn, err := n.Dial(c.Context(), id, service(args[1:]))
			if err != nil {
				return errors.Join(err, closeNode(n))
			}
			return errors.Join(pipe.Run(c.Context(), conn, a.in, a.out), closeNode(n))
		},
	}
	a.addNodeFlags(c)
	return c
}
