package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"bodkin/portmap"

	"github.com/spf13/cobra"
)

func (a *app) mapAddCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use:   "add udp|tcp PORT",
		Short: "Have a port mapped, and leave it so",
		Long: `Ask the router for a port, print what it granted, and leave it there until the lease
ends or it is taken back with 'bodkin map rm'. Where something is to be reachable
for as long as it runs, use 'bodkin map watch', which renews.

A UDP port is checked from outside if a server is given. Where a program here has
the port, another one is mapped for a moment and checked in its place. It ends
with 1 if the router granted nothing, or does not forward what it granted.

With --json it prints an object: protocol, gateway, transport, internal, external,
lifetime_ns (0: for ever), until, double_nat, check (reachable, unreachable, not
ours, hairpin, not checked) and why.`,
		Example: "  bodkin map add udp 27015\n" +
			"  bodkin map add tcp 443 --to :8443 --lease 168h --name 'my web server'\n" +
			"  bodkin map add udp 27015 --ipv6",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: mapArgs,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(c.Context(), args[0], args[1])
			if err != nil {
				return &codeError{codeUsage, err}
			}
			config, err := f.config()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			check, err := a.checker(c.Context())
			if err != nil {
				return err
			}
			return a.mapAdd(c.Context(), f, config, r, check)
		},
	}
	f.addRequest(c, addLease)
	f.addRouter(c)
	a.addCheckFlag(c)
	return c
}

// mapped is a line of `bodkin map add --json`.
type mapped struct {
	portmap.Grant

	Name      string    `json:"name,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	DoubleNAT bool      `json:"double_nat"`
	checked
}

func (a *app) mapAdd(ctx context.Context, f mapFlags, config portmap.Config, r portmap.Request, check *portCheck) error {
	if err := known(config, r.Internal.Addr()); err != nil {
		return err
	}
	kept, err := openTickets()
	if err != nil {
		return err
	}
	r.Nonce = kept.nonce(r)
	client := portmap.Start(ctx, config)
	defer func() { _ = client.Close() }()
	m, err := client.Map(r)
	if err != nil {
		return &codeError{codeUsage, err}
	}
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	g, err := m.Wait(within)
	if err != nil {
		return mapFailure(r, err)
	}
	found := check.grant(ctx, client, g)
	tickets := m.Detach()
	if err := kept.add(tickets); err != nil {
		return err
	}
	failed := false
	for _, t := range tickets {
		if t.External != g.External {
			found = check.grant(ctx, client, t.Grant)
		}
		failed = failed || found.failed()
		x := mapped{t.Grant, t.Name, t.Until, t.DoubleNAT(), found}
		if err := a.print(x, "%s", x.text()); err != nil {
			return err
		}
	}
	if failed {
		return &codeError{codeFailed, fmt.Errorf("the router granted it, but it is not reached from outside")}
	}
	return nil
}

func (m mapped) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "%-12s  "+format+"\n", append([]any{name}, args...)...)
	}
	outside := m.External.String()
	if !m.External.Addr().IsValid() {
		outside = fmt.Sprintf("port %d, at an address that the router does not know", m.External.Port())
	}
	line("outside", "%s %s", m.Transport, outside)
	line("inside", "%v", m.Internal)
	line("granted by", "%v, by %s%s", m.Gateway, m.Protocol, pinholeText(m.Grant))
	line("lease", "%s", leaseText(m.Grant, fmt.Sprintf("; end it before with: bodkin map rm %s %d", m.Transport, m.External.Port())))
	if m.DoubleNAT {
		line("double NAT", "%s", doubleNAT(m.External.Addr()))
	}
	line("from outside", "%s", m.checked)
	return strings.TrimSuffix(b.String(), "\n")
}

func pinholeText(g portmap.Grant) string {
	if g.Pinhole() {
		return ": a pinhole in its firewall"
	}
	return ""
}

func leaseText(g portmap.Grant, more string) string {
	if g.Lifetime == 0 {
		return "until it is taken back: this router has no other leases" + more
	}
	return span(g.Lifetime) + more
}

func doubleNAT(a netip.Addr) string {
	return fmt.Sprintf("%v is no address of the internet: beyond this router is another one; map the port there as well, or make one of them a bridge", a)
}
