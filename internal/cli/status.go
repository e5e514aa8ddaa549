package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bodkin"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the running node on this machine knows",
		Long: `Ask the running node with this key on this machine what it knows: how the server
sees it, its peers, the routes to them with their round trips, and the traffic by
route. With --json, times are in nanoseconds and traffic is in bytes.`,
		Example: "  bodkin status\n  bodkin status --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := keyFile(a.node.key, "node.key")
			if err != nil {
				return err
			}
			key, err := peer.LoadKey(path)
			if err != nil {
				return err // without a key nothing can be running
			}
			n, err := control.Connect(c.Context(), key.ID())
			if err != nil {
				return fmt.Errorf("no node with the ID %s is running on this machine (%w); start one with `bodkin listen`, or name its key with --key",
					key.ID().Short(), err)
			}
			s, err := n.Status(c.Context())
			if err != nil {
				return err
			}
			return a.print(s, "%s", statusText(s, time.Now()))
		},
	}
	a.addKeyFlag(c)
	return c
}

func statusText(s bodkin.Status, now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "%-17s  "+format+"\n", append([]any{name}, args...)...)
	}
	state := "registered"
	if !s.Registered {
		state = "not registered"
	}
	if s.Displaced {
		state += "; another process accepts connections"
	}
	line("peer ID", "%s", s.ID)
	line("server", "%s (%s)", s.Server, state)
	line("seen from inside", "%s", endpoints(s.Private))
	line("seen from outside", "%s", endpoints(s.Observed))
	line("services", "%s", list(s.Services))
	line("running for", "%s", span(now.Sub(s.Since)))
	for _, p := range s.Peers {
		b.WriteByte('\n')
		line("peer", "%s", p.ID)
		for i, r := range p.Routes {
			line("  route", "%s", routeText(r, i == 0))
		}
		for _, transport := range slices.Sorted(maps.Keys(p.Traffic)) {
			t := p.Traffic[transport]
			line("  traffic", "%s: %s sent, %s received", transport, size(t.Sent), size(t.Received))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func routeText(r bodkin.Route, inUse bool) string {
	out := fmt.Sprintf("%s %v", r.Transport, r.Endpoint)
	if r.RTT > 0 {
		out += fmt.Sprintf(", %.1f ms", milliseconds(r.RTT))
	}
	if inUse {
		out += ", in use"
	}
	return out
}
