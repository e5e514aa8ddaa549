package cli

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"bodkin/internal/sock"
	"bodkin/peer"
	"bodkin/rendezvous"

	"github.com/spf13/cobra"
)

type serveFlags struct {
	listen, public       []string
	listenTCP, listenTLS []string
	tls                  bool
	tlsCert, tlsKey      string
	acme                 string
	key                  string
	relayRate, totalRate string
	registrations        int
	icmp                 bool
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a rendezvous server",
		Long: `Run a rendezvous server: it introduces nodes to each other, and relays what they
say, encrypted from end to end, where no direct path opens. It needs UDP port 3478
to be reachable, and nothing else. Its key is made at first start; the URL that it
prints is all that nodes need. It ends with 0 when it is told to.

Nodes whose network blocks UDP come over TCP, to the same port, or over TLS with
--tls, to port 443, which hardly any network blocks. The certificate is the server's
own, which nodes know by the URL; --tls-cert and --tls-key name another one, which is
read anew when it is replaced. --acme HOST gets one of Let's Encrypt for that name,
and renews it: Let's Encrypt must reach port 443 of it. TLS only looks like what
passes; what is said is sealed with the server's key in any case.

It is a STUN server too, for anybody. From port 3479, which it takes if that is
free, it answers those who want to know what their NAT lets in. On a machine with
two public addresses name both with --public: then it tells all that RFC 5780 can.
If a NAT translates them, name the local ones with --listen, in the same order and
each with the same two ports.

With --icmp it answers pings of nodes: those whose network lets nothing else out
register by them, and all learn how their NAT translates pings. That takes a raw
socket: sudo setcap cap_net_raw+ep $(which bodkin), instead of root.

Rates are in bit/s, with k, M or G. With --json it prints an object first: id,
urls, and listen, the addresses that it is bound to; with TCP and TLS also
listen_tcp and listen_tls.`,
		Example: "  bodkin serve --public rendezvous.example.org\n  bodkin serve --public rendezvous.example.org --acme rendezvous.example.org\n  bodkin serve --listen 192.0.2.7:3478 --relay-rate 20M",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.serve(c, f) },
	}
	c.Flags().StringSliceVar(&f.listen, "listen", nil, "`ADDRESS:PORT` to bind, or :PORT; give it again for more (default: ports 3478 and 3479 of all)")
	c.Flags().StringSliceVar(&f.public, "public", nil, "`HOST` or HOST:PORT by which nodes reach this server; give it again for more (default: its addresses)")
	c.Flags().StringSliceVar(&f.listenTCP, "listen-tcp", nil, "`ADDRESS:PORT` or :PORT for TCP, or none; give it again for more (default: the first ports of --listen, if they are free)")
	c.Flags().StringSliceVar(&f.listenTLS, "listen-tls", nil, "`ADDRESS:PORT` or :PORT for TLS; give it again for more (default: port 443 of all, with --tls)")
	c.Flags().BoolVar(&f.tls, "tls", false, "take connections over TLS, with the server's own certificate unless another flag names one")
	c.Flags().StringVar(&f.tlsCert, "tls-cert", "", "`FILE` with the certificate chain for TLS, in PEM")
	c.Flags().StringVar(&f.tlsKey, "tls-key", "", "`FILE` with the certificate's private key, in PEM")
	c.Flags().StringVar(&f.acme, "acme", "", "`HOST` for which to get a certificate of Let's Encrypt, whose terms you accept so (kept in bodkin/acme in the cache folder)")
	c.Flags().BoolVar(&f.icmp, "icmp", false, "speak by ICMP echo too: for networks that let nothing but pings out (needs CAP_NET_RAW)")
	c.Flags().StringVar(&f.key, "key", "", "`FILE` of the server key (default: bodkin/server.key in the configuration folder)")
	c.Flags().StringVar(&f.relayRate, "relay-rate", "50M", "`RATE` at the most between two peers, each way; 0: no limit")
	c.Flags().StringVar(&f.totalRate, "relay-total", "0", "`RATE` at the most in all; 0: no limit")
	c.Flags().IntVar(&f.registrations, "max-nodes", 0, "`N` registrations at the most (default: 100000)")
	return c
}

func (a *app) serve(c *cobra.Command, f serveFlags) error {
	path, err := keyFile(f.key, "server.key")
	if err != nil {
		return err
	}
	cfg, err := f.config()
	if err != nil {
		return &codeError{codeUsage, err}
	}
	cfg.Logger, cfg.ICMP = a.logger(), f.icmp
	if cfg.Key, err = peer.LoadOrCreateKey(path); err != nil {
		return err
	}
	if len(cfg.ListenTLS) > 0 {
		if cfg.TLS, err = f.certificate(c.Context(), cfg.Key, cfg.Logger); err != nil {
			return err
		}
	}
	s, err := rendezvous.NewServer(c.Context(), cfg)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; another server may be running: choose another port with --listen", err)
	}
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%w; allow the program to use low ports (setcap cap_net_bind_service=+ep %s), or choose another port with --listen-tls: the URL will name it", err, os.Args[0])
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) && len(f.listen) == 0 {
		return fmt.Errorf("%w; if a NAT translates the addresses of --public, name the local ones with --listen", err)
	}
	if err != nil {
		return err
	}
	urls := f.urls(s)
	started := map[string]any{"id": s.ID(), "urls": urls, "listen": s.Addrs()}
	tcp, tls := s.StreamAddrs()
	if len(tcp) > 0 {
		started["listen_tcp"] = tcp
	}
	if len(tls) > 0 {
		started["listen_tls"] = tls
	}
	if err := a.print(started, "%s", strings.Join(urls, "\n")); err != nil {
		return err
	}
	newNotifier().say("READY=1\nSTATUS=%s", urls[0])
	err = s.Serve(c.Context())
	a.logger().Info("served", "stats", s.Stats())
	return err
}

// listenAddrs reads --listen or the like; :PORT binds both families.
func listenAddrs(flag string, texts []string) (out []netip.AddrPort, err error) {
	for _, text := range texts {
		host, port, err := net.SplitHostPort(text)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil {
			return nil, fmt.Errorf("%s %q: it needs the form ADDRESS:PORT or :PORT", flag, text)
		}
		if host == "" {
			out = append(out, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)))
			continue
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %q is not an IP address", flag, text, host)
		}
		out = append(out, netip.AddrPortFrom(a, uint16(n)))
	}
	return out, nil
}

// config is what the flags describe, but for the key.
func (f serveFlags) config() (c rendezvous.ServerConfig, err error) {
	if c.Listen, err = listenAddrs("--listen", f.listen); err != nil {
		return c, err
	}
	if err := f.streams(&c); err != nil {
		return c, err
	}
	if c.Limits.RelayPerPair, err = parseRate(f.relayRate); err != nil {
		return c, fmt.Errorf("--relay-rate: %w", err)
	}
	if c.Limits.RelayPerServer, err = parseRate(f.totalRate); err != nil {
		return c, fmt.Errorf("--relay-total: %w", err)
	}
	c.Limits.RelayPerNode = -1 // what a pair may, times its pairs
	if c.Limits.Registrations = f.registrations; f.registrations < 0 {
		return c, errors.New("--max-nodes cannot be negative")
	}
	for _, p := range f.public {
		host, port, err := publicHost(p)
		if err != nil {
			return c, fmt.Errorf("--public %q: %w", p, err)
		}
		if a, err := netip.ParseAddr(host); err == nil && (port == 0 || binds(c.Listen, port)) {
			c.Public = append(c.Public, a)
		}
	}
	return c, nil
}

// binds reports whether the server is at that port itself: else a NAT changes ports,
// and STUN's answers have nothing to say of addresses behind it.
func binds(listen []netip.AddrPort, port uint16) bool {
	return len(listen) == 0 && port == rendezvous.DefaultPort ||
		slices.ContainsFunc(listen, func(l netip.AddrPort) bool { return l.Port() == port })
}

// parseRate reads bit/s with k, M or G; -1 is no limit.
func parseRate(text string) (int64, error) {
	number, factor := text, int64(1)
	for suffix, f := range map[string]int64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			number, factor = rest, f
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is not a rate such as 20M (bit/s, with k, M or G)", text)
	}
	if n == 0 {
		return -1, nil
	}
	return n * factor, nil
}

// publicHost reads HOST or HOST:PORT; port 0 is none given.
func publicHost(text string) (host string, port uint16, err error) {
	host = strings.Trim(text, "[]")
	if h, p, err := net.SplitHostPort(text); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("port %q is not between 1 and 65535", p)
		}
		host, port = h, uint16(n)
	}
	// Nodes have to be able to read the URL: whose ID it names does not matter here.
	u := rendezvous.URL{Host: host, Port: 1, ID: peer.NewKey([32]byte{}).ID()}
	if again, err := rendezvous.ParseURL(u.String()); err != nil || again != u {
		return "", 0, errors.New("it is not the name or the address of a host")
	}
	return host, port, nil
}

// urls are how nodes reach the server: by --public, or else by the addresses that
// it is bound to, on the first port of each.
func (f serveFlags) urls(s *rendezvous.Server) (out []string) {
	for _, p := range f.public {
		host, port, _ := publicHost(p) // checked before
		u := s.URL(host)
		if port != 0 {
			u.Port = port
		}
		out = append(out, u.String())
	}
	if len(out) > 0 {
		return out
	}
	seen := make(map[netip.Addr]bool)
	for _, b := range s.Addrs() {
		if seen[b.Addr()] {
			continue
		}
		seen[b.Addr()] = true
		for _, a := range reachable(b.Addr()) {
			u := s.URL(a.String())
			u.Port = b.Port()
			out = append(out, u.String())
		}
	}
	return out
}

// reachable are the addresses behind a bound one, which may stand for all of its
// family.
func reachable(bound netip.Addr) (out []netip.Addr) {
	if !bound.IsUnspecified() {
		return []netip.Addr{bound}
	}
	prefixes, _ := sock.System{}.Prefixes()
	for _, p := range prefixes {
		if p.Addr().Is4() == bound.Is4() {
			out = append(out, p.Addr())
		}
	}
	if len(out) == 0 && bound.Is4() {
		out = append(out, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return out
}
