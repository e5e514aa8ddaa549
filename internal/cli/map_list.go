package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/portmap"

	"github.com/spf13/cobra"
)

func (a *app) mapListCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "Show which ports the router lets in",
		Long: `Show the mappings that the router lists, whoever asked for them, and those that
'bodkin map add' left here. Only UPnP can list: where the router does not speak it,
only the latter are shown.

With --json it prints an object each: transport, external, internal, name, gateway,
lifetime_ns (what is left; 0: for ever), and ours.`,
		Example: "  bodkin map list\n  bodkin map list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := f.config()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			return a.mapList(c.Context(), config, f.timeout)
		},
	}
	f.addRouter(c)
	c.Flags().DurationVar(&f.timeout, "timeout", mapWait, "`TIME` for the router to answer")
	return c
}

// listed is a line of `bodkin map list --json`.
type listed struct {
	portmap.Entry

	Ours bool `json:"ours"`
}

func (a *app) mapList(ctx context.Context, config portmap.Config, wait time.Duration) error {
	kept, err := openTickets()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	entries, err := portmap.List(ctx, config)
	if err != nil && len(entries)+len(kept.all) == 0 {
		return fmt.Errorf("the router lists nothing: %w", err)
	}
	if err != nil {
		a.say("bodkin: the router lists nothing (%v); these are what `bodkin map add` left", err)
	}
	var all []listed
	for _, e := range entries {
		all = append(all, listed{e, slices.ContainsFunc(kept.all, func(t portmap.Ticket) bool { return isEntry(t, e) })})
	}
	for _, t := range kept.all {
		if slices.ContainsFunc(entries, func(e portmap.Entry) bool { return isEntry(t, e) }) {
			continue
		}
		e := portmap.Entry{
			Gateway: t.Gateway, Transport: t.Transport, Internal: t.Internal, External: t.External, Name: t.Name, Enabled: true,
		}
		if !t.Until.IsZero() {
			e.Lifetime = time.Until(t.Until).Round(time.Second)
		}
		all = append(all, listed{e, true})
	}
	for _, x := range all {
		if err := a.print(x, "%s", x.text()); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		a.say("no mappings")
	}
	return nil
}

// isEntry reports whether an entry of a router is the mapping of a ticket.
func isEntry(t portmap.Ticket, e portmap.Entry) bool {
	return t.Gateway == e.Gateway && t.Transport == e.Transport && t.External.Port() == e.External.Port() && t.Internal == e.Internal
}

func (l listed) text() string {
	left, more := "for ever", ""
	if l.Lifetime > 0 {
		left = span(l.Lifetime) + " left"
	}
	if l.Ours {
		more += ", of `bodkin map add`"
	}
	if !l.Enabled {
		more += ", switched off"
	}
	return fmt.Sprintf("%s %v -> %v  %q  %s%s", l.Transport, l.External, l.Internal, l.Name, left, more)
}

func (a *app) mapRemoveCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use:     "rm udp|tcp PORT",
		Aliases: []string{"remove"},
		Short:   "Take a port back",
		Long: `Have the router delete the mapping of a port, inside or outside: what 'bodkin map
add' left, or else what leads to this machine by the router's list.`,
		Example:           "  bodkin map rm udp 27015",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: mapArgs,
		RunE: func(c *cobra.Command, args []string) error {
			t, port, err := parsePort(args[0], args[1])
			if err != nil {
				return &codeError{codeUsage, err}
			}
			config, err := f.config()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			ctx, cancel := context.WithTimeout(c.Context(), f.timeout)
			defer cancel()
			return a.mapRemove(ctx, config, t, port)
		},
	}
	f.addRouter(c)
	c.Flags().DurationVar(&f.timeout, "timeout", mapWait, "`TIME` for the router to answer")
	return c
}

func (a *app) mapRemove(ctx context.Context, config portmap.Config, t portmap.Transport, port uint16) error {
	kept, err := openTickets()
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(slices.Clone(kept.all), func(x portmap.Ticket) bool {
		return x.Transport != t || x.External.Port() != port && x.Internal.Port() != port
	})
	if len(gone) == 0 {
		if gone, err = ofRouter(ctx, config, t, port); err != nil {
			return err
		}
	}
	for _, x := range gone {
		if err := portmap.Return(ctx, config, x); err != nil {
			return fmt.Errorf("%s %v: %w", t, x.External, err)
		}
		kept.drop(x)
		if err := kept.save(); err != nil {
			return err
		}
		if err := a.print(x.Grant, "gave back %s %v -> %v", t, x.External, x.Internal); err != nil {
			return err
		}
	}
	return nil
}

// ofRouter finds a mapping that leads to this machine in the routers' lists.
func ofRouter(ctx context.Context, config portmap.Config, t portmap.Transport, port uint16) (out []portmap.Ticket, err error) {
	find := portmap.Gateways
	if config.Gateways != nil {
		find = config.Gateways
	}
	gateways, err := find()
	if err != nil {
		return nil, err
	}
	entries, err := portmap.List(ctx, config)
	var others []netip.AddrPort
	for _, e := range entries {
		if e.Transport != t || e.External.Port() != port {
			continue
		}
		if !slices.ContainsFunc(gateways, func(g portmap.Gateway) bool { return g.Local.Addr() == e.Internal.Addr() }) {
			others = append(others, e.Internal)
			continue
		}
		out = append(out, portmap.Ticket{Grant: portmap.Grant{
			Protocol: portmap.UPnP, Gateway: e.Gateway, Transport: t, Internal: e.Internal, External: e.External,
		}})
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(others) > 0:
		return nil, fmt.Errorf("%s %d leads to %v, another machine: take it back there, or on the router's page", t, port, others[0])
	case err != nil:
		return nil, fmt.Errorf("`bodkin map add` left no %s %d, and the router lists nothing: %w", t, port, err)
	}
	return nil, fmt.Errorf("neither `bodkin map add` nor the router knows of %s %d; see `bodkin map list`", t, port)
}
