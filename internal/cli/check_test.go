package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
	"bodkin/rendezvous"
)

// hosts are several hosts of a lab as one machine, with the addresses of all.
type hosts []*natlab.LiveHost

func (h hosts) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	for _, x := range h {
		if local.Addr() == x.Addr() || local.Addr() == x.Addr6() {
			return x.ListenPacket(ctx, network, local)
		}
	}
	return nil, fmt.Errorf("no host has %v", local)
}

func (h hosts) Prefixes() (all []netip.Prefix, _ error) {
	for _, x := range h {
		p, _ := x.Prefixes()
		all = append(all, p...)
	}
	return all, nil
}

// checkedIn is what `bodkin check` makes of a preset, in fake time. The server is a
// real one, with several addresses.
func checkedIn(t *testing.T, preset natlab.Preset, addresses int, lifetime bool) (c checkup) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		top := natlab.TwoHomes(natlab.Options{PresetA: preset, PresetB: natlab.Open, IPv6: true})
		top.Hosts = append(top.Hosts, natlab.Host{Name: "server2", Link: natlab.Link{Delay: 10 * time.Millisecond}})
		lab, err := natlab.NewLive(top)
		if err != nil {
			t.Fatal(err)
		}
		defer lab.Close()
		on := hosts{lab.Host("server"), lab.Host("server2")}[:addresses]
		cfg := rendezvous.ServerConfig{Key: peer.NewKey([32]byte{1}), Network: on}
		for _, port := range []uint16{3478, 3479} {
			for _, h := range on {
				cfg.Listen = append(cfg.Listen, netip.AddrPortFrom(h.Addr(), port), netip.AddrPortFrom(h.Addr6(), port))
			}
		}
		s, err := rendezvous.NewServer(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		servers := []netip.AddrPort{netip.AddrPortFrom(on[0].Addr(), 3478), netip.AddrPortFrom(on[0].Addr6(), 3478)}
		r, err := nat.Measure(ctx, nat.LiveConfig{Config: nat.Config{Server: servers, Lifetime: lifetime}, Network: lab.Host("a")})
		if err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c = diagnose("the server", r, nil, nil)
	})
	return c
}

func TestDoctorKnowsEveryPreset(t *testing.T) {
	t.Parallel()
	const all, ordinary = "direct direct direct direct direct", "direct direct direct direct direct"
	for preset, want := range map[natlab.Preset]struct {
		class   class
		peers   string
		advice  string // a part of it, or none
		summary string
	}{
		natlab.Open:                {noNAT, all, "", "No NAT"},
		natlab.Firewall:            {firewalled, ordinary, "", "No NAT, but a firewall"},
		natlab.FullCone:            {fullCone, all, "", "full cone"},
		natlab.AddressRestricted:   {addressRestricted, all, "", "address-restricted"},
		natlab.PortRestricted:      {portRestricted, ordinary, "", "port-restricted"},
		natlab.Linux:               {portRestricted, ordinary, "", "port-restricted"},
		natlab.LinuxAccept:         {portRestricted, ordinary, "policy drop", "port-restricted"},
		natlab.OpenWrt:             {portRestricted, ordinary, "", "port-restricted"},
		natlab.SymmetricSequential: {symmetric, "direct direct mostly direct relay sometimes direct", "static port", "takes the next one each time"},
		natlab.SymmetricBusy:       {symmetric, "direct direct mostly direct relay sometimes direct", "static port", "others take"},
		natlab.SymmetricRandom:     {symmetric, "direct direct relay relay relay", "static port", "at random"},
		natlab.CGNAT:               {portRestricted, ordinary, "", "port-restricted"},
		natlab.CGNATBlock:          {symmetric, "direct direct sometimes direct relay sometimes direct", "public IPv4 address", "of the 512 from"},
		natlab.SameNAT:             {portRestricted, ordinary, "", "port-restricted"},
		natlab.SameNATHairpin:      {portRestricted, ordinary, "", "port-restricted"},
		natlab.DoubleNAT:           {portRestricted, ordinary, "", "port-restricted"},
		natlab.UDPBlocked:          {udpBlocked, "", "Allow UDP", "blocks it"},
		natlab.TCPOnly443:          {udpBlocked, "", "Allow UDP", "blocks it"},
		natlab.ICMPLoose:           {portRestricted, ordinary, "", "port-restricted"},
		natlab.ShortTimeout:        {portRestricted, ordinary, "", "port-restricted"},
		natlab.V6Firewall:          {symmetric, "direct direct relay relay relay", "static port", "at random"},
	} {
		t.Run(string(preset), func(t *testing.T) {
			t.Parallel()
			c := checkedIn(t, preset, 2, false)
			var peers []string
			for _, p := range c.Peers {
				peers = append(peers, string(p.Outcome))
			}
			text := c.text(true)
			if c.Class != want.class || strings.Join(peers, " ") != want.peers || !strings.Contains(c.Summary, want.summary) {
				t.Errorf("class %s, peers %q\n%s", c.Class, strings.Join(peers, " "), text)
			}
			if want.advice == "" && len(c.Advice) > 0 || !strings.Contains(strings.Join(c.Advice, "\n"), want.advice) {
				t.Errorf("advice %q, want %q", c.Advice, want.advice)
			}
			if c.Class != udpBlocked && !strings.Contains(text, "IPv6            works; the server sees 2001:db8:") {
				t.Errorf("IPv6 is not there:\n%s", text)
			}
		})
	}
}

func TestDoctorWithOneAddress(t *testing.T) {
	t.Parallel()
	if c := checkedIn(t, natlab.FullCone, 1, false); c.Class != addressRestricted || !strings.Contains(c.Summary, "cannot be told") {
		t.Error(c.text(true))
	}
	if c := checkedIn(t, natlab.Open, 1, false); c.Class != noNAT {
		t.Error(c.text(true))
	}
	if c := checkedIn(t, natlab.Linux, 1, false); c.Class != portRestricted {
		t.Error(c.text(true))
	}
}

func TestDoctorOnLifetimes(t *testing.T) {
	t.Parallel()
	c := checkedIn(t, natlab.ShortTimeout, 1, true)
	if !strings.Contains(c.text(false), "mappings live   19s to 20s after the last packet") || !strings.Contains(strings.Join(c.Advice, ""), "RFC 4787") {
		t.Error(c.text(true))
	}
}

// Programs read this: what is there must stay.
func TestCheckupAsJSON(t *testing.T) {
	t.Parallel()
	c := checkedIn(t, natlab.SymmetricSequential, 2, false)
	c.Routers = &routers{Speak: []string{"pcp"}, Grants: []portmap.Grant{}}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	if strings.Join(names, " ") != "advice class nat peers port_mapping server summary version" || got["version"] != 1.0 || got["class"] != "symmetric" {
		t.Errorf("%s", b)
	}
	if !strings.Contains(string(b), `{"peer":"port-restricted","outcome":"direct","tactic":"predict"}`) {
		t.Errorf("%s", b)
	}
}

func TestRoutersAreBelievedAsFarAsTheServerSees(t *testing.T) {
	t.Parallel()
	r := nat.Report{Public: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	for text, want := range map[string]string{
		"203.0.113.1:4000":  "the router grants 203.0.113.1:4000 by pcp",
		"100.64.1.1:4000":   "another NAT is behind it",
		"203.0.113.99:4000": "another NAT is behind it",
	} {
		got := (&routers{Speak: []string{"pcp"}, Grants: []portmap.Grant{{Protocol: portmap.PCP, External: netip.MustParseAddrPort(text)}}}).words(r)
		if !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestSecondNATIsFound(t *testing.T) {
	t.Parallel()
	hops := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			a, _ := netip.ParseAddr(text)
			out = append(out, a)
		}
		return out
	}
	public := nat.Report{Public: hops("203.0.113.1"), Mapping: nat.Finding[nat.Behavior]{Value: nat.EndpointIndependent, Time: time.Unix(1, 0)}}
	silent := &routers{}
	granted := func(text string) *routers {
		return &routers{Grants: []portmap.Grant{{External: netip.MustParseAddrPort(text)}}}
	}
	for name, c := range map[string]struct {
		levels int
		hops   []netip.Addr
		asked  *routers
		want   int
	}{
		"nothing more":            {1, nil, nil, 1},
		"a carrier on the way":    {1, hops("192.168.1.1", "", "100.64.3.1", "198.51.100.1", ""), silent, 2},
		"a customer of a carrier": {1, hops("100.64.3.1", "100.64.9.9"), nil, 1},
		"routers inside":          {1, hops("10.0.0.1", "10.1.0.1"), nil, 1},
		"no NAT":                  {0, hops("192.0.2.1", "100.64.3.1"), nil, 0},
		"the router says so":      {1, nil, granted("100.64.3.7:4000"), 2},
		"the router is outside":   {1, nil, granted("203.0.113.1:4000"), 1},
	} {
		r := public
		r.Levels = nat.Finding[int]{Value: c.levels, Time: time.Unix(1, 0)}
		got := diagnose("", r, c.asked, c.hops)
		if got.NAT.Levels.Value != c.want || (c.want > 1) != strings.Contains(strings.Join(got.Advice, ""), "another NAT outside") {
			t.Errorf("%s: %d levels, want %d; %q", name, got.NAT.Levels.Value, c.want, got.Advice)
		}
		if c.asked == silent && strings.Contains(strings.Join(got.Advice, ""), "UPnP") {
			t.Errorf("%s: a router's port is of no use behind a carrier's NAT; %q", name, got.Advice)
		}
		if n := len(got.Hops); n > 0 && !got.Hops[n-1].IsValid() {
			t.Errorf("%s: %v", name, got.Hops)
		}
	}
}

func TestRoutersAreAsked(t *testing.T) {
	t.Parallel()
	public := nat.Report{Public: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		want     string
		works    bool
	}{
		"granted": {portmaptest.Behavior{}, `^the router grants 203\.0\.113\.1:\d+ by pcp$`, true},
		"denied":  {portmaptest.Behavior{Deny: true}, `^refused by the router, which speaks .*pcp`, false},
		"silent":  {portmaptest.Behavior{Silent: true}, `^the router offers none$`, false},
		"double":  {portmaptest.Behavior{Says: netip.MustParseAddr("100.64.1.2")}, `another NAT is behind it$`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				router := portmaptest.NewRouter(portmaptest.Options{Behavior: c.behavior})
				a := askRouters(t.Context(), portmap.Config{Network: router.Network(), Gateways: router.Gateways, Protocols: []portmap.Protocol{portmap.PCP, portmap.NATPMP}})
				r := a.answers(t.Context(), nat.Server{}, nil)
				if got := r.words(public); !regexp.MustCompile(c.want).MatchString(got) || r.works(public) != c.works {
					t.Errorf("%s; works: %v; %+v", got, r.works(public), r)
				}
				if left := router.Mappings(); len(left) > 0 {
					t.Errorf("left at the router: %v", left)
				}
			})
		})
	}
	if r := (*asking)(nil).answers(t.Context(), nat.Server{}, nil); r != nil || r.works(public) {
		t.Errorf("nobody was asked: %+v", r)
	}
}

// Two routers in series: each is asked for what it can give.
func TestRouterBehindTheRouterIsAsked(t *testing.T) {
	t.Parallel()
	seen := nat.Report{Public: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	outside, second := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.1")
	for name, c := range map[string]struct {
		outer portmaptest.Behavior
		want  string
	}{
		"granted": {portmaptest.Behavior{}, `another NAT is behind it; the router behind it, 192\.168\.0\.1, grants 203\.0\.113\.1:\d+ by nat-pmp$`},
		"denied":  {portmaptest.Behavior{Deny: true}, `the router behind it, 192\.168\.0\.1, refuses: .+`},
		"silent":  {portmaptest.Behavior{Silent: true}, `the router behind it, 192\.168\.0\.1, does not answer$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				inner := portmaptest.NewRouter(portmaptest.Options{External: outside})
				outer := portmaptest.NewRouter(portmaptest.Options{Inside: second, Behavior: c.outer})
				a := askRouters(t.Context(), portmap.Config{Network: inner.Network(), Gateways: inner.Gateways, Protocols: []portmap.Protocol{portmap.PCP}})
				a.outer.Network = outer.Network()
				r := a.answers(t.Context(), nat.Server{}, []netip.Addr{netip.MustParseAddr("192.168.1.1"), second})
				if got := r.words(seen); !regexp.MustCompile(c.want).MatchString(got) {
					t.Errorf("%s; %+v", got, r.Outer)
				}
				if left := append(inner.Mappings(), outer.Mappings()...); len(left) > 0 {
					t.Errorf("left at the routers: %v", left)
				}
				f := levels(nat.Report{Public: seen.Public, Levels: nat.Finding[int]{Value: 1, Time: time.Now()}}, r, nil)
				if f.Value != 2 {
					t.Errorf("%d NATs", f.Value)
				}
			})
		})
	}
}

func TestServersThatAreAsked(t *testing.T) {
	t.Parallel()
	id := peer.NewKey([32]byte{1}).ID().String()
	for text, want := range map[string]string{
		"stun:stun.example.org":        "stun.example.org 3478",
		"stun:stun.example.org:19302":  "stun.example.org 19302",
		"stun:192.0.2.1":               "192.0.2.1 3478",
		"stun:[2001:db8::1]:5000":      "2001:db8::1 5000",
		"stun:2001:db8::1":             "2001:db8::1 3478",
		"bodkin://example.org/" + id:   "example.org 3478",
		"bodkin://[::1]:7/" + id:       "::1 7",
		"stun:":                        "",
		"stun://example.org":           "",
		"stun:example.org:0":           "",
		"stun:example.org:x":           "",
		"turn:example.org":             "",
		"":                             "",
		"stun:user@example.org":        "",
		"stun:example.org?transport=x": "",
	} {
		host, port, err := stunServer(text)
		if got := fmt.Sprint(host, " ", port); err != nil && want != "" || err == nil && got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// Somebody else's server, which knows all of RFC 5780.
func TestCheckByCoturn(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("turnserver")
	if err != nil {
		t.Skip("turnserver is not installed (Debian: apt-get install coturn)")
	}
	ports := freePorts(t)
	//nolint:gosec // a program of the system
	cmd := exec.CommandContext(t.Context(), path, "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "--pidfile=", "--log-file=stdout",
		"--listening-ip=127.0.0.1", "--listening-ip=127.0.0.2",
		fmt.Sprintf("--listening-port=%d", ports[0]), fmt.Sprintf("--alt-listening-port=%d", ports[1]))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports[0])
	for {
		// It may not have begun yet: then nothing answers.
		r, err := nat.Measure(t.Context(), nat.LiveConfig{Config: nat.Config{Server: []netip.AddrPort{server}}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Blocked.Value == nat.Yes {
			select {
			case err := <-ended:
				t.Fatalf("turnserver ended: %v", err)
			default:
				continue
			}
		}
		c := diagnose(server.String(), r, nil, nil)
		if c.Class != noNAT || r.Mapping.Value != nat.None || r.Filtering.Value != nat.None || r.Server.OtherAddress != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), ports[1]) {
			t.Errorf("%s\n%+v", c.text(true), r)
		}
		return
	}
}

// freePorts are two that are free on the addresses of loopback.
func freePorts(t *testing.T) (ports [2]uint16) {
	t.Helper()
	for i := range ports {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		ports[i] = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	return ports
}
