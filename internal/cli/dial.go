package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"bodkin"
	"bodkin/internal/app/pipe"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

func (a *app) dialCommand() *cobra.Command {
	var tcp bool
	var serverless string
	c := &cobra.Command{
		Use:   "dial PEER [SERVICE]",
		Short: "Connect standard input and output to a peer",
		Long: `Connect standard input and output to a service of a peer that listens, as netcat
would. The end of the input ends that direction, and the command ends when both
directions have; with a terminal as its input, when the peer has ended its own.
SERVICE is "pipe" if it is not given, as for listen.

With --tcp it is plain TLS over TCP, through a hole that is punched by TCP: as fast as
the system's own, and without the relay, another route or a second chance. It takes a
node of its own. listen takes such connections as well.

With --serverless the peer is found without a server: it listens with --serverless too,
behind a NAT whose public address is ADDRESS. This machine needs a public address of its
own, and the right to open raw sockets. --server, --server-via and --transports count
for nothing then.

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
			if serverless != "" {
				if tcp {
					return &codeError{codeUsage, errors.New("--serverless goes without --tcp: without a server a hole is punched by UDP alone")}
				}
				at, err := endpointOrAddress(serverless)
				if err != nil {
					return &codeError{codeUsage, fmt.Errorf("--serverless: %w", err)}
				}
				a.withoutServer(&bodkin.Serverless{Peers: map[peer.ID]netip.AddrPort{id: at}})
			}
			if tcp {
				return a.dialTCP(c.Context(), id, name)
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
	c.Flags().StringVar(&serverless, "serverless", "", fmt.Sprintf("`ADDRESS[:PORT]` at which the peer listens without a server (default port: %d)", bodkin.ServerlessPort))
	c.Flags().BoolVar(&tcp, "tcp", false, "plain TLS over TCP through a hole, nothing else")
	return c
}

// dialTCP connects by TCP alone. A node that runs already punches by whatever is best.
func (a *app) dialTCP(ctx context.Context, id peer.ID, service string) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	cfg.Transports = []string{"tcp"}
	log, err := a.openEvents()
	if err != nil {
		return err
	}
	defer log.close()
	n, err := start(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { log.status(n.Status()) }()
	log.say(eventDialling, bodkin.Route{})
	conn, err := n.DialTCP(ctx, id, service)
	if err != nil {
		return end(ctx, n, err)
	}
	log.say(eventConnected, conn.Route())
	err = pipe.Run(ctx, conn, a.streams())
	_ = conn.Close()
	return end(ctx, n, err)
}
