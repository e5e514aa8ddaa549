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
	"sync"

	"bodkin/internal/sock"
	"bodkin/nat"
	"bodkin/portmap"
	"bodkin/rendezvous"

	"github.com/spf13/cobra"
)

// checkVersion is that of the JSON of `bodkin check`: fields may be added without
// another one.
const checkVersion = 1

// checkup is what `bodkin check` found out and made of it.
type checkup struct {
	Version int        `json:"version"`
	Server  string     `json:"server"`
	Class   class      `json:"class"`
	Summary string     `json:"summary"`
	NAT     nat.Report `json:"nat"`
	// Routers is nil where none was asked: nothing is translated.
	Routers *routers `json:"port_mapping,omitempty"`
	// Streams are the other ways to a rendezvous server that does not answer over UDP.
	Streams []streamCheck `json:"streams,omitempty"`
	// Hops are the first routers on the way, by IPv4; "" says nothing. There are
	// none where the system does not show them.
	Hops []netip.Addr `json:"hops,omitempty"`
	// ICMP is what this program can do by ICMP, on this machine.
	ICMP   icmpUse   `json:"icmp,omitzero"`
	Peers  []meeting `json:"peers"`
	Advice []string  `json:"advice"`
}

// firstHops is how far a carrier's NAT may be.
const firstHops = 6

type checkFlags struct {
	server   string
	lifetime bool
	ask      bool
}

func (a *app) checkCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check",
		Short: "Find out what this network does to connections",
		Long: `Find out which kind of NAT or firewall this machine is behind, what that means for
connections to others, and what would help. A second or two tell all but how long
mappings live: --lifetime waits for that, ten minutes at the most.

It asks a STUN server: the rendezvous server, or with --server stun:HOST any other
one. How much can be told depends on it: a server with two ports tells most, one
with two addresses as well (RFC 5780) everything. Where something is translated,
the router is asked for a port too, which is given back at once;
--port-mapping=false leaves that out.

With -v each finding has what was seen. With --json it prints one object, with a
version. Where UDP is blocked it tries to reach a rendezvous server over TCP and TLS,
as nodes do. It ends with 3 if nothing answers.`,
		Example: "  bodkin check\n  bodkin check --server stun:stun.example.org\n  bodkin check --lifetime --json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.check(c.Context(), f) },
	}
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the rendezvous server, or stun:HOST[:PORT] of any STUN server")
	markSetting(c.Flags().Lookup("server"))
	c.Flags().BoolVar(&f.lifetime, "lifetime", false, "measure how long mappings live, too")
	c.Flags().BoolVar(&f.ask, "port-mapping", true, "ask the router for a port")
	return c
}

func (a *app) check(ctx context.Context, f checkFlags) error {
	host, port, err := stunServer(f.server)
	if err != nil {
		return &codeError{codeUsage, err}
	}
	servers, err := resolve(ctx, host, port)
	if err != nil {
		return &codeError{codeNoServer, err}
	}
	if f.lifetime && !a.json {
		a.say("measuring how long mappings live: this takes minutes")
	}
	c := nat.LiveConfig{Config: nat.Config{Server: servers, Lifetime: f.lifetime}}
	var ask *asking
	var lives nat.Span
	c.Progress = func(r nat.Report) {
		if f.ask && ask == nil && r.Levels.Known() && r.Levels.Value > 0 {
			ask = askRouters(ctx, portmap.Config{})
		}
		if now := r.Lifetime.Value; now != lives && !r.Complete && !a.json {
			lives = now
			a.say("a mapping in use lives %v", now)
		}
	}
	var hops []netip.Addr
	var tracing sync.WaitGroup
	if at := slices.IndexFunc(servers, func(s netip.AddrPort) bool { return s.Addr().Is4() }); at >= 0 {
		tracing.Go(func() { hops, _ = nat.Hops(ctx, sock.System{}, servers[at], firstHops) })
	}
	report, err := nat.Measure(ctx, c)
	tracing.Wait()
	asked := ask.answers(ctx, report.Server, hops)
	if ctx.Err() != nil {
		return context.Cause(ctx) // half of it would be a wrong diagnosis
	}
	result := diagnose(net.JoinHostPort(host, strconv.Itoa(int(port))), report, asked, hops)
	if u, err := rendezvous.ParseURL(f.server); err == nil && report.Blocked.Value == nat.Yes {
		result.byStreams(checkStreams(ctx, u))
	}
	result.ICMP = useOfICMP(ctx)
	if printErr := a.print(result, "%s", result.text(a.verbose)); printErr != nil {
		return printErr
	}
	if err == nil && report.Blocked.Value == nat.Yes && instead(result.Streams) == "" {
		err = &codeError{codeNoServer, fmt.Errorf("%s does not answer over UDP", result.Server)}
	}
	return err
}

// stunServer is where the server of a flag is.
func stunServer(text string) (host string, port uint16, err error) {
	if text == "" {
		return "", 0, errors.New("no server: give its URL with --server or in BODKIN_SERVER, as `bodkin serve` prints it, or any STUN server's as stun:HOST")
	}
	rest, isSTUN := strings.CutPrefix(text, "stun:")
	if !isSTUN {
		u, err := rendezvous.ParseURL(text)
		if err != nil {
			return "", 0, fmt.Errorf("%w; or like stun:HOST[:PORT]", err)
		}
		return u.Host, u.Port, nil
	}
	bad := fmt.Errorf("%q is not like stun:HOST[:PORT]", text)
	host, port = rest, rendezvous.DefaultPort
	if h, p, err := net.SplitHostPort(rest); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, bad
		}
		host, port = h, uint16(n)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, ":/ []?@")) {
		return "", 0, bad
	}
	return host, port, nil
}

// resolve is where a server is, one endpoint an address family at the most.
func resolve(ctx context.Context, host string, port uint16) (out []netip.AddrPort, err error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a.Unmap(), port))
	}
	return out, nil
}
