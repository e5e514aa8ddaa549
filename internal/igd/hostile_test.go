package igd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/igd"
	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

// spied is the network of a fake router, which counts what is read, and where to.
type spied struct {
	portmap.Network
	mu     sync.Mutex
	dialed []netip.AddrPort
	read   int
	// alter changes what arrives by UDP, and from whom.
	alter func(b []byte, from net.Addr) (int, net.Addr)
}

func (s *spied) Dial(ctx context.Context, network string, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	s.mu.Lock()
	s.dialed = append(s.dialed, to)
	s.mu.Unlock()
	c, err := s.Network.Dial(ctx, network, to)
	if err != nil {
		return nil, err
	}
	return counted{c, s}, nil
}

func (s *spied) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c, err := s.Network.ListenPacket(ctx, network, local)
	return altered{c, s}, err
}

type counted struct {
	net.Conn
	s *spied
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.read += n
	return n, err
}

type altered struct {
	net.PacketConn
	s *spied
}

func (c altered) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil && c.s.alter != nil {
		n, from = c.s.alter(b[:n], from)
	}
	return n, from, err
}

func link(t *testing.T, r *portmaptest.Router) (igd.Link, *spied) {
	t.Helper()
	s := &spied{Network: r.Network()}
	g, err := r.Gateways()
	if err != nil {
		t.Fatal(err)
	}
	return igd.Link{Network: s, Interface: g[0].Interface, Local: g[0].Local, Gateway: g[0].Addr}, s
}

func TestNothingIsFollowedOffLink(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]portmaptest.UPnP{
		"location at another host":      {Location: "http://198.51.100.7:49152/root.xml"},
		"location at a neighbour":       {Location: "http://192.168.1.77:49152/root.xml"},
		"location with a name":          {Location: "http://router.example:49152/root.xml"},
		"location of this machine":      {Location: "http://127.0.0.1:49152/root.xml"},
		"location by https":             {Location: "https://192.168.1.1:49152/root.xml"},
		"location of a file":            {Location: "file:///etc/passwd"},
		"location with a user":          {Location: "http://192.168.1.1@198.51.100.7/root.xml"},
		"location without a port":       {Location: "http://192.168.1.1:0/root.xml"},
		"redirect to another host":      {Redirect: "http://198.51.100.7/root.xml"},
		"redirect to a neighbour":       {Redirect: "//192.168.1.77:49152/root.xml"},
		"redirect without end":          {Redirect: "/root.xml"},
		"actions at another host":       {Control: "http://198.51.100.7/ctl/ip"},
		"actions at another, by path":   {Control: "//198.51.100.7/ctl/ip"},
		"base of another host":          {Description: written("<root><URLBase>http://198.51.100.7/</URLBase>" + services + "</root>")},
		"base that is no URL":           {Description: written("<root><URLBase>http://[::1</URLBase>" + services + "</root>")},
		"actions at a port that is not": {Control: "http://192.168.1.1:99999/ctl/ip"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				u.Version1 = true // the other service's URL would be good
				r := portmaptest.NewRouter(portmaptest.Options{Behavior: portmaptest.Behavior{UPnP: u}})
				l, s := link(t, r)
				if d, err := igd.Find(t.Context(), l); err == nil {
					t.Errorf("found %+v", d)
				} else if len(err.Error()) > 500 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				for _, to := range s.dialed {
					if to.Addr() != l.Gateway {
						t.Errorf("went to %v", to)
					}
				}
				if len(s.dialed) > 4 {
					t.Errorf("went to the router %d times", len(s.dialed))
				}
			})
		})
	}
}

const services = `<device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>` +
	`<controlURL>/ctl/ip</controlURL></service></serviceList></device>`

func written(s string) func(io.Writer) {
	return func(w io.Writer) { _, _ = io.WriteString(w, s) }
}

func TestReadingIsBounded(t *testing.T) {
	t.Parallel()
	endless := func(begin, middle string) func(io.Writer) {
		return func(w io.Writer) {
			_, _ = io.WriteString(w, begin)
			for n := 0; n < 10<<20; n += len(middle) {
				if _, err := io.WriteString(w, middle); err != nil {
					return
				}
			}
		}
	}
	lol := `<?xml version="1.0"?><!DOCTYPE root [<!ENTITY a "aaaaaaaaaaaaaaaa">` +
		`<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><root>&c;</root>`
	for name, u := range map[string]portmaptest.UPnP{
		"10 MB of text":       {Description: endless("<root><friendlyName>", "0123456789abcdef")},
		"10 MB of elements":   {Description: endless("<root>", "<device></device>")},
		"10 MB of attributes": {Description: endless("<root ", `a="0123456789" `)},
		"10 MB of a name":     {Description: endless("<", "abcdefghij")},
		"10 MB of a comment":  {Description: endless("<root><!--", "abcdefghij")},
		"10 MB of services":   {Description: endless("<root>", services)},
		"10 MB of depth":      {Description: endless("", "<a>")},
		"entities":            {Description: written(lol)},
		"nothing":             {Description: written("")},
		"no services":         {Description: written("<root></root>")},
		"half of it":          {Description: written("<root>" + services)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := portmaptest.NewRouter(portmaptest.Options{Behavior: portmaptest.Behavior{UPnP: u}})
				l, s := link(t, r)
				if d, err := igd.Find(t.Context(), l); err == nil {
					t.Errorf("found %+v", d)
				}
				if most := 200 << 10; s.read > most {
					t.Errorf("%d bytes were read, more than %d", s.read, most)
				}
			})
		})
	}
}

func TestFaultIsBounded(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]string{
		"10 MB":    strings.Repeat("<a>0123456789</a>", 600_000),
		"10 MB in": "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>" + strings.Repeat("<a>0123456789</a>", 600_000),
		"empty":    " ",
		"no XML":   "500 Internal Server Error\x1b[2J",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := portmaptest.NewRouter(portmaptest.Options{})
				l, s := link(t, r)
				d, err := igd.Find(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				r.Set(func(b *portmaptest.Behavior) { b.UPnP.Fault = fault })
				_, err = d.External(t.Context())
				if err == nil || len(err.Error()) > 300 || strings.ContainsRune(err.Error(), '\x1b') {
					t.Errorf("error %q", err)
				}
				if most := 100 << 10; s.read > most {
					t.Errorf("%d bytes were read, more than %d", s.read, most)
				}
			})
		})
	}
}

func TestAnswersOfStrangersDoNotCount(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]func(b []byte, from net.Addr) (int, net.Addr){
		"from another net": func(b []byte, _ net.Addr) (int, net.Addr) {
			return len(b), &net.UDPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 1900}
		},
		// It names the gateway's URL, which is not its own.
		"from a neighbour": func(b []byte, _ net.Addr) (int, net.Addr) {
			return len(b), &net.UDPAddr{IP: net.IPv4(192, 168, 1, 77), Port: 1900}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, s := link(t, portmaptest.NewRouter(portmaptest.Options{}))
				s.alter = alter
				_, err := igd.Find(t.Context(), l)
				if !errors.Is(err, igd.ErrSilent) || len(s.dialed) > 0 {
					t.Errorf("%v, went to %v", err, s.dialed)
				}
			})
		})
	}
}

func TestSilentRouterTakesSixSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := link(t, portmaptest.NewRouter(portmaptest.Options{Behavior: portmaptest.Behavior{Silent: true}}))
		start := time.Now()
		if _, err := igd.Find(t.Context(), l); !errors.Is(err, igd.ErrSilent) || time.Since(start) != 6*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := igd.Find(ctx, l); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A device of the link that is not the gateway is asked only when the gateway has
// turned out to be none.
func TestNeighbourServesWhenTheGatewayDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, s := link(t, portmaptest.NewRouter(portmaptest.Options{}))
		l.Gateway = netip.MustParseAddr("192.168.1.254")
		start := time.Now()
		d, err := igd.Find(t.Context(), l)
		if err != nil || d.Addr != netip.MustParseAddr("192.168.1.1") || time.Since(start) != 6*time.Second {
			t.Errorf("%+v, %v after %v", d, err, time.Since(start))
		}
		if len(s.dialed) == 0 {
			t.Error("nobody was asked")
		}
	})
}
