package portmap_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bodkin/internal/testmain"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/portmap"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The bed of the tests against a real daemon: a home whose router is a namespace
// with Linux's own NAT, and miniupnpd in it.

func TestMain(m *testing.M) {
	testmain.MoreAtOnce()
	netbed.Main(m)
}

// daemonOptions are what miniupnpd is told.
type daemonOptions struct {
	NATPMP, UPnP bool // NATPMP is PCP as well
	IPv6         bool
	MaxLifetime  time.Duration // 0: a day
	// Rules are lines of miniupnpd's permissions; all is allowed with none.
	Rules []string
	// Quiet leaves its log away: it writes a line for each port that it refuses,
	// and tries all of them.
	Quiet bool
	// Inner puts another NAT between the host and the daemon's router.
	Inner bool
	// Far adds a second home, with host "far", and random ports on both routers.
	Far bool
}

// home is host "a" behind box "home", which runs the daemon, and host "world".
type home struct {
	*netbed.Lab
	t       *testing.T
	options daemonOptions
	dir     string

	command *exec.Cmd
	started time.Time
	reader  sync.WaitGroup // of what it says
	log     []string
}

const miniupnpd = "/usr/sbin/miniupnpd"

// startHome builds the home and starts the daemon.
func startHome(t *testing.T, o daemonOptions) *home {
	t.Helper()
	netbed.Need(t)
	if _, err := os.Stat(miniupnpd); err != nil {
		t.Skip("miniupnpd is missing: apt-get install miniupnpd-nftables")
	}
	topology := natlab.Topology{
		IPv6:   o.IPv6,
		Public: netip.MustParsePrefix("11.0.0.0/8"), // miniupnpd knows the documentation ranges
		Boxes:  []natlab.Box{{Name: "home"}},
		Hosts:  []natlab.Host{{Name: "a", Behind: "home"}, {Name: "b", Behind: "home"}, {Name: "world"}},
	}
	if o.Inner {
		topology.Boxes = append(topology.Boxes, natlab.Box{Name: "inner", Behind: "home"})
		topology.Hosts[0].Behind = "inner"
	}
	if o.Far {
		topology.Boxes[0].Preset, topology.Boxes[0].Link.Delay = natlab.SymmetricRandom, 20*time.Millisecond
		topology.Boxes = append(topology.Boxes, natlab.Box{
			Name: "other", Preset: natlab.SymmetricRandom, Link: natlab.Link{Delay: 30 * time.Millisecond},
		})
		topology.Hosts[2].Link.Delay = 10 * time.Millisecond
		topology.Hosts = append(topology.Hosts, natlab.Host{Name: "far", Behind: "other"})
	}
	lab, err := netbed.Kernel.Start(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	h := &home{Lab: lab, t: t, options: o, dir: t.TempDir()}
	if err := lab.Box("home").Do(chains); err != nil {
		t.Fatal(err)
	}
	h.startDaemon()
	t.Cleanup(h.stopDaemon)
	return h
}

// natTable is the table that miniupnpd translates in; the box has its own.
const natTable = "miniupnpd_nat"

// chains makes those that miniupnpd fills: what its nft_init.sh does.
func chains() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	filter := &nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"} // the box's
	c.AddChain(&nftables.Chain{Table: filter, Name: "miniupnpd"})
	c.AddRule(jump(filter, "forward", "miniupnpd"))
	nat := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: natTable})
	for _, x := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority *nftables.ChainPriority
	}{
		{"prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest},
		{"postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityRef(99)}, // before the box's
	} {
		c.AddChain(&nftables.Chain{Table: nat, Name: x.name + "_miniupnpd"})
		c.AddChain(&nftables.Chain{Table: nat, Name: x.name, Type: nftables.ChainTypeNAT, Hooknum: x.hook, Priority: x.priority})
		c.AddRule(jump(nat, x.name, x.name+"_miniupnpd"))
	}
	return c.Flush()
}

func jump(t *nftables.Table, from, to string) *nftables.Rule {
	return &nftables.Rule{
		Table: t, Chain: &nftables.Chain{Name: from, Table: t},
		Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}},
	}
}

func (h *home) config() string {
	yes := map[bool]string{true: "yes", false: "no"}
	most := h.options.MaxLifetime
	if most == 0 {
		most = 24 * time.Hour
	}
	lines := []string{
		"ext_ifname=wan", "listening_ip=lan", "http_port=5000",
		"enable_natpmp=" + yes[h.options.NATPMP], "enable_upnp=" + yes[h.options.UPnP],
		"ipv6_disable=" + yes[!h.options.IPv6],
		"min_lifetime=5", fmt.Sprintf("max_lifetime=%d", most/time.Second),
		"upnp_table_name=filter", "upnp_nat_table_name=" + natTable,
		"upnp_forward_chain=miniupnpd", "upnp_nat_chain=prerouting_miniupnpd", "upnp_nat_postrouting_chain=postrouting_miniupnpd",
		"lease_file=" + filepath.Join(h.dir, "leases"), "system_uptime=no", "notify_interval=60",
		"uuid=4d2c7f0e-6b0a-4f3e-9f5e-0a1b2c3d4e5f", "secure_mode=yes",
	}
	if h.options.IPv6 {
		lines = append(lines, "lease_file6="+filepath.Join(h.dir, "leases6"), "ext_ifname6=wan")
	}
	rules := h.options.Rules
	if len(rules) == 0 {
		rules = []string{"allow 1-65535 0.0.0.0/0 1-65535"}
	}
	return strings.Join(append(lines, rules...), "\n") + "\n"
}

// startDaemon starts miniupnpd, and waits until it says that it listens.
func (h *home) startDaemon() {
	h.t.Helper()
	file := filepath.Join(h.dir, "miniupnpd.conf")
	if err := os.WriteFile(file, []byte(h.config()), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if h.options.Quiet {
		err := h.Box("home").Do(func() error {
			return exec.CommandContext(h.t.Context(), miniupnpd, "-f", file, "-P", filepath.Join(h.dir, "pid")).Run()
		})
		if err != nil {
			h.t.Fatal(err)
		}
		return // a child of it goes on
	}
	h.command = exec.Command(miniupnpd, "-d", "-f", file, "-P", filepath.Join(h.dir, "pid")) //nolint:noctx // the lab ends it
	out, in, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.command.Stdout, h.command.Stderr = in, in
	if err := h.Box("home").Do(h.command.Start); err != nil {
		h.t.Fatal(err)
	}
	_ = in.Close()
	ready := make(chan struct{})
	h.reader.Go(func() { h.read(out, ready) })
	h.t.Cleanup(func() {
		h.reader.Wait()
		_ = out.Close()
		if h.t.Failed() {
			h.t.Logf("miniupnpd:\n%s", strings.Join(h.log, "\n"))
		}
	})
	<-ready
	h.started = time.Now()
}

// read keeps the end of what the daemon says.
func (h *home) read(out io.Reader, ready chan struct{}) {
	once := sync.OnceFunc(func() { close(ready) })
	defer once()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "istening") {
			once()
		}
		if len(h.log) == 100 {
			h.log = h.log[1:]
		}
		h.log = append(h.log, lines.Text())
	}
}

// stopDaemon ends miniupnpd. The rules that it made stay behind or not, as it does.
func (h *home) stopDaemon() {
	if h.command == nil {
		return
	}
	_ = h.command.Process.Signal(os.Interrupt)
	_ = h.command.Wait()
	h.reader.Wait()
	h.command = nil
}

// client starts a client on a host of the home; its events come by the channel.
func (h *home) client(host string, protocols ...portmap.Protocol) (*portmap.Client, <-chan portmap.Event) {
	h.t.Helper()
	events := make(chan portmap.Event, 1000)
	c := portmap.Start(h.t.Context(), portmap.Config{
		Protocols: protocols, Network: h.Host(host), Gateways: h.gateways(host),
		Observe: func(e portmap.Event) {
			h.t.Logf("%s %s %v %v %v", e.Kind, e.Protocol, e.Grant.Internal, e.Grant.External, e.Err)
			select {
			case events <- e:
			default:
			}
		},
	})
	h.t.Cleanup(func() { _ = c.Close() })
	return c, events
}

// gateways reads those of a host's namespace.
func (h *home) gateways(host string) func() ([]portmap.Gateway, error) {
	return func() (g []portmap.Gateway, err error) {
		err = h.Host(host).Do(func() error {
			g, err = portmap.Gateways()
			return err
		})
		return g, err
	}
}

// granted waits for a mapping's first grant.
func (h *home) granted(m *portmap.Mapping) portmap.Grant {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	g, err := m.Wait(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	return g
}

// refused waits until a mapping was refused, and says why.
func (h *home) refused(m *portmap.Mapping) error {
	h.t.Helper()
	late := time.After(40 * time.Second)
	for {
		changed := m.Changed()
		if err := m.Err(); err != nil && !errors.Is(err, portmap.ErrSilent) {
			return err
		}
		select {
		case <-changed:
		case <-late:
			h.t.Fatalf("not refused: grants %+v, error %v", m.Grants(), m.Err())
		}
	}
}

// gateway is the daemon's address inside.
func (h *home) gateway() string {
	h.t.Helper()
	g, err := h.gateways("b")()
	if err != nil || len(g) == 0 {
		h.t.Fatalf("gateways %v, %v", g, err)
	}
	return g[0].Addr.String()
}

// age waits until the daemon has run for some seconds.
func (h *home) age() {
	h.t.Helper()
	<-time.After(time.Until(h.started.Add(5 * time.Second)))
}

// forget removes what a daemon that was stopped left behind.
func (h *home) forget() {
	h.t.Helper()
	_ = os.Remove(filepath.Join(h.dir, "leases"))
	_ = os.Remove(filepath.Join(h.dir, "leases6"))
	err := h.Box("home").Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		filter := &nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"}
		nat := &nftables.Table{Family: nftables.TableFamilyINet, Name: natTable}
		c.FlushChain(&nftables.Chain{Table: filter, Name: "miniupnpd"})
		c.FlushChain(&nftables.Chain{Table: nat, Name: "prerouting_miniupnpd"})
		c.FlushChain(&nftables.Chain{Table: nat, Name: "postrouting_miniupnpd"})
		return c.Flush()
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.reset()
}

// reset has the router's NAT forget the flows that it let through.
func (h *home) reset() {
	h.t.Helper()
	if err := h.Box("home").Reboot(false); err != nil {
		h.t.Fatal(err)
	}
}

// awaitEvent waits for an event of a kind.
func awaitEvent(t *testing.T, events <-chan portmap.Event, kind portmap.EventKind) portmap.Event {
	t.Helper()
	late := time.After(40 * time.Second)
	for {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
		case <-late:
			t.Fatalf("no event %q", kind)
		}
	}
}

// server opens a UDP socket on host a. Its port is to be mapped.
func (h *home) server(host, network string) *net.UDPConn {
	h.t.Helper()
	c, err := h.Host(host).ListenUDP(h.t.Context(), network, netip.AddrPort{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func portOf(c *net.UDPConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// arrives sends packets from the world to an endpoint until one arrives.
func (h *home) arrives(to netip.AddrPort, at *net.UDPConn) bool {
	h.t.Helper()
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	world, err := h.Host("world").ListenUDP(h.t.Context(), network, netip.AddrPort{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = world.Close() }()
	b := make([]byte, 100)
	for range 10 {
		if _, err := world.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
			h.t.Fatal(err)
		}
		_ = at.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		switch n, _, err := at.ReadFromUDPAddrPort(b); {
		case err == nil && string(b[:n]) == "hello":
			return true
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			h.t.Fatal(err)
		}
	}
	return false
}

// program runs a program on a host and returns what it printed.
func (h *home) program(host, name string, args ...string) string {
	h.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		h.t.Skipf("%s is missing: apt-get install natpmpc miniupnpc", name)
	}
	var out bytes.Buffer
	c := exec.CommandContext(h.t.Context(), path, args...)
	c.Stdout, c.Stderr = &out, &out
	if err := h.Host(host).Start(c); err != nil {
		h.t.Fatal(err)
	}
	_ = c.Wait()
	return out.String()
}
