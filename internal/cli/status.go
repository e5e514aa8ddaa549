package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"bodkin"
	"bodkin/internal/control"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the running node on this machine knows",
		Long: `Ask the running node with this key on this machine what it knows: how the server
sees it, its peers, the routes to them, and the traffic by route.`,
		Example: "  bodkin status\n  bodkin status --json | jq .peers",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			key, err := a.loadKey()
			if err != nil {
				return err
			}
			n, err := control.Connect(c.Context(), key.ID())
			if err != nil {
				return fmt.Errorf("no node with this key is running on this machine (%w); start one with `bodkin listen`", err)
			}
			s, err := n.Status(c.Context())
			if err != nil {
				return err
			}
			return a.print(s, "%s", statusText(s))
		},
	}
	c.Flags().StringVar(&a.node.key, "key", "", "file of the node key (default: node.key in the configuration folder)")
	return c
}

func statusText(s bodkin.Status) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	line := func(name string, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("peer ID", "%s", s.ID)
	state := "registered"
	if !s.Registered {
		state = "not registered"
	}
	if s.Displaced {
		state += ", another process accepts connections"
	}
	line("server", "%s (%s)", s.Server, state)
	line("seen from inside", "%s", endpoints(s.Private))
	line("seen from outside", "%s", endpoints(s.Observed))
	line("services", "%s", strings.Join(s.Services, ", "))
	line("running since", "%s", s.Since.Format(time.DateTime))
	for _, p := range s.Peers {
		line("", "")
		line("peer", "%s", p.ID)
		for i, r := range p.Routes {
			use := ""
			if i == 0 {
				use = " (in use)"
			}
			line("  route", "%s %v %s%s", r.Transport, r.Endpoint, r.RTT.Round(time.Microsecond*100), use)
		}
		for transport, t := range p.Traffic {
			line("  traffic", "%s: %d bytes sent, %d received", transport, t.Sent, t.Received)
		}
	}
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func endpoints(es []netip.AddrPort) string {
	var out []string
	for _, e := range es {
		out = append(out, e.String())
	}
	return strings.Join(out, ", ")
}
