package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bodkin/portmap"

	"github.com/spf13/cobra"
)

// mapFlags are what the commands under map take.
type mapFlags struct {
	to        string
	external  uint16
	exact     bool
	ipv6      bool
	lease     time.Duration
	name      string
	protocols []string
	gateway   string
	timeout   time.Duration
}

const (
	// mapWait is how long routers have to answer: UPnP's search takes six seconds.
	mapWait = 10 * time.Second
	// addLease is asked for where nobody renews, watchLease where somebody does.
	addLease, watchLease = 24 * time.Hour, time.Hour
)

func (a *app) mapCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "map",
		Short: "Ask the router to let a port in: PCP, NAT-PMP, UPnP",
		Long: `Ask the router for a port, so that everybody can reach a game server, a web server
or whatever else runs here: without Bodkin at the other end. PCP, NAT-PMP and UPnP
are tried at once. Over IPv6 a pinhole in the router's firewall is opened.

Give --server, or BODKIN_SERVER, and a UDP port is checked from outside: the
rendezvous server sends a packet to it.`,
		Example: "  bodkin map add udp 27015\n  bodkin map list",
	}
	c.AddCommand(a.mapAddCommand(), a.mapWatchCommand(), a.mapListCommand(), a.mapRemoveCommand())
	return c
}

func (f *mapFlags) addRequest(c *cobra.Command, lease time.Duration) {
	fs := c.Flags()
	fs.StringVar(&f.to, "to", "", "`HOST:PORT` or :PORT where packets go (default: the same port here); another host's only by UPnP, if at all")
	fs.Uint16Var(&f.external, "external", 0, "`PORT` outside (default: the same one)")
	fs.BoolVar(&f.exact, "exact", false, "take no other port outside")
	fs.BoolVarP(&f.ipv6, "ipv6", "6", false, "open a pinhole for our IPv6 addresses instead")
	fs.DurationVar(&f.lease, "lease", lease, "`TIME` that the router is asked to keep it")
	fs.StringVar(&f.name, "name", "", "`TEXT` for the router's page, by UPnP (default: bodkin)")
	fs.DurationVar(&f.timeout, "timeout", mapWait, "`TIME` for the router to answer")
}

func (f *mapFlags) addRouter(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.protocols, "protocols", nil, "`LIST` of how to ask, of: pcp, nat-pmp, upnp (default: all)")
	c.Flags().StringVar(&f.gateway, "gateway", "", "`ADDRESS` of the router to ask (default: the gateways of this machine)")
}

func (a *app) addCheckFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.node.server, "server", "", "`URL` of the rendezvous server that checks from outside (default: no check)")
	markSetting(c.Flags().Lookup("server"))
}

// mapArgs suggests what follows map add and the like.
func mapArgs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args)%2 == 0 {
		return []string{"udp", "tcp"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// config is how the routers are asked.
func (f *mapFlags) config() (c portmap.Config, err error) {
	for _, p := range f.protocols {
		if !slices.Contains(portmap.Protocols(), portmap.Protocol(p)) {
			return c, fmt.Errorf("--protocols: %q is none of %v", p, portmap.Protocols())
		}
		c.Protocols = append(c.Protocols, portmap.Protocol(p))
	}
	if f.gateway == "" {
		return c, nil
	}
	g, err := netip.ParseAddr(f.gateway)
	if err != nil {
		return c, fmt.Errorf("--gateway: %w", err)
	}
	c.Gateways = func() ([]portmap.Gateway, error) { return through(g) }
	return c, nil
}

// through is the one router to ask: a gateway that the system knows, or else the
// address, as who we are to it.
func through(router netip.Addr) ([]portmap.Gateway, error) {
	all, err := portmap.Gateways()
	all = slices.DeleteFunc(all, func(g portmap.Gateway) bool { return g.Addr != router })
	if err != nil || len(all) > 0 {
		return all, err
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(router, 5351))) // sends nothing
	if err != nil {
		return nil, fmt.Errorf("no way to %v: %w", router, err)
	}
	defer func() { _ = c.Close() }()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Contains(local) {
				return []portmap.Gateway{{Interface: i.Name, Addr: router, Local: netip.PrefixFrom(local, p.Bits())}}, nil
			}
		}
	}
	return nil, fmt.Errorf("no interface has the address %v, which leads to %v", local, router)
}

// request is what the arguments and flags ask for.
func (f *mapFlags) request(ctx context.Context, transport, port string) (r portmap.Request, err error) {
	if r.Transport, r.External, err = parsePort(transport, port); err != nil {
		return r, err
	}
	inside := netip.AddrPortFrom(netip.IPv4Unspecified(), r.External)
	if f.ipv6 {
		inside = netip.AddrPortFrom(netip.IPv6Unspecified(), r.External)
	}
	if f.to != "" {
		if inside, err = f.target(ctx, inside.Addr()); err != nil {
			return r, err
		}
	}
	if f.external != 0 {
		r.External = f.external
	}
	switch {
	case f.lease < time.Second:
		return r, errors.New("--lease: it needs a second at the least")
	case f.ipv6 && r.External != inside.Port():
		return r, errors.New("--external: an IPv6 pinhole translates nothing; the port is the same outside and here")
	}
	r.Internal, r.Exact, r.Lifetime, r.Name = inside, f.exact, f.lease, f.name
	return r, nil
}

// target is where --to leads; without a host, to any address of ours.
func (f *mapFlags) target(ctx context.Context, anywhere netip.Addr) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(f.to)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("--to %q: it needs the form HOST:PORT or :PORT", f.to)
	}
	if host == "" {
		return netip.AddrPortFrom(anywhere, uint16(n)), nil
	}
	family := map[bool]string{true: "ip4", false: "ip6"}[anywhere.Is4()]
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("--to: %w", err)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)), nil
}

// known finds out whether a router of ours could serve a host that --to names.
func known(c portmap.Config, host netip.Addr) error {
	if host.IsUnspecified() {
		return nil
	}
	find := portmap.Gateways
	if c.Gateways != nil {
		find = c.Gateways
	}
	gateways, err := find()
	if err != nil || slices.ContainsFunc(gateways, func(g portmap.Gateway) bool { return g.Local.Contains(host) }) {
		return err
	}
	return fmt.Errorf("--to: %v is in no network of this machine that has a router", host)
}

func parsePort(transport, port string) (t portmap.Transport, n uint16, err error) {
	if err := t.UnmarshalText([]byte(transport)); err != nil {
		return t, 0, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || p == 0 {
		return t, 0, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	return t, uint16(p), nil
}

// mapFailure says why nothing was granted, and what to do.
func mapFailure(r portmap.Request, err error) error {
	told := refusals(err, func(e error) bool { return errors.As(e, new(*portmap.RefusedError)) })
	if len(told) == 0 {
		told = refusals(err, func(e error) bool { return errors.Is(e, portmap.ErrCannot) || errors.Is(e, portmap.ErrFailed) })
	}
	what := fmt.Sprintf("%s port %d", r.Transport, r.Internal.Port())
	switch {
	case errors.Is(err, portmap.ErrNoGateway) && r.Internal.Addr().Is6():
		return fmt.Errorf("%s: this machine has no IPv6 address that a router serves; it needs one from the provider", what)
	case errors.Is(err, portmap.ErrNoGateway):
		return fmt.Errorf("%s: this machine has no router (default gateway); connect it to a network, or name the router with --gateway", what)
	case len(told) > 0:
		return fmt.Errorf("%s: %s", what, strings.Join(told, "\n  "))
	case errors.Is(err, portmap.ErrSilent), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no router answered; turn on UPnP, NAT-PMP or PCP in its settings, or forward the port there by hand", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// refusals are those of the errors that were joined which are of a kind, once each.
func refusals(err error, kind func(error) bool) (out []string) {
	if !kind(err) {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the tree is walked here
	if !ok || !strings.Contains(err.Error(), "\n") {  // one error that wraps several is one
		return []string{err.Error()}
	}
	for _, e := range joined.Unwrap() {
		if e == nil {
			continue
		}
		for _, text := range refusals(e, kind) {
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}
