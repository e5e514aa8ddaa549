package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bodkin"
	"bodkin/internal/app/pipe"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

func (a *app) listenCommand() *cobra.Command {
	var allow []string
	var keep bool
	c := &cobra.Command{
		Use:   "listen [SERVICE]",
		Short: "Wait for a peer and connect it to standard input and output",
		Long: `Wait for a peer to dial, and connect it to standard input and output, as netcat
would. It takes one connection and ends with it; with --keep the next ones, too.
While it runs it answers pings, and other commands with its key go through it.`,
		Example: "  bodkin listen > file\n  bodkin listen --allow PEER ssh",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.config()
			if err != nil {
				return err
			}
			for _, text := range allow {
				id, err := parsePeer(text)
				if err != nil {
					return fmt.Errorf("--allow: %w", err)
				}
				cfg.Peers = append(cfg.Peers, id)
			}
			return a.listen(c.Context(), cfg, service(args), keep)
		},
	}
	a.addNodeFlags(c)
	c.Flags().StringSliceVar(&allow, "allow", nil, "peer ID that may connect (default: everybody who knows this node's ID)")
	c.Flags().BoolVar(&keep, "keep", false, "after a connection, wait for the next one")
	return c
}

func (a *app) listen(ctx context.Context, cfg bodkin.Config, service string, keep bool) error {
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
	l, err := n.Listen(service)
	if err == nil {
		err = registered(ctx, n) // once more: now the server knows that we listen
	}
	if err != nil {
		return errors.Join(err, n.Close())
	}
	log.say(eventListening, bodkin.Route{})
	s, err := control.Serve(n)
	if err != nil {
		a.say("bodkin: status and ping cannot reach this node: %v", err)
	} else {
		defer s.Close()
	}
	a.greet(n.ID(), cfg, service)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return errors.Join(err, closeNode(n))
		}
		c := conn.(*bodkin.Conn)
		a.logger().Info("connected", "peer", c.Peer(), "route", c.Route().Transport)
		log.say(eventConnected, c.Route())
		err = pipe.Run(ctx, c, a.in, log.firstByte(a.out, c.Route))
		if !keep || ctx.Err() != nil {
			_ = l.Close()
			return errors.Join(err, closeNode(n))
		}
		if err != nil {
			a.say("bodkin: %v", err)
		}
		_ = c.Close()
	}
}

// greet says who we are and how the other side reaches us.
func (a *app) greet(id peer.ID, cfg bodkin.Config, service string) {
	a.say("peer ID: %s", id)
	command := []string{"bodkin dial --server", cfg.Server, id.String()}
	if service != defaultService {
		command = append(command, service)
	}
	a.say("connect with: %s", strings.Join(command, " "))
	if cfg.Peers == nil {
		a.say("note: everybody who knows this peer ID may connect; name peers with --allow to change that")
	}
}
