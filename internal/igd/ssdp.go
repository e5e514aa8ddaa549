package igd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	ssdpPort = 1900
	// maxFailures bounds the errors of a socket that are passed over in a round.
	maxFailures = 20
	// maxDatagram is more than any answer to a search has.
	maxDatagram = 2048
)

// Where all devices of a link listen (§1.1, and annex A for IPv6: of the link).
var (
	group4 = netip.MustParseAddr("239.255.255.250")
	group6 = netip.MustParseAddr("ff02::c")
)

// targets are what is searched for. A device of version 2 must answer to version
// 1 as well (§1.3.2); some do not.
var targets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// Answer is what a device says to a search.
type Answer struct {
	From     netip.Addr
	Location *url.URL
	// Boot is BOOTID.UPNP.ORG (§1.2.2): another one after each restart. It is empty
	// with devices of version 1.0.
	Boot string
	// Server says what the device runs.
	Server string
}

// search is one message (§1.3.2): to the group, with the seconds that devices may
// wait at most, or to a single host, without.
func search(to netip.Addr, target string) []byte {
	host := netip.AddrPortFrom(to.WithZone(""), ssdpPort)
	var b bytes.Buffer
	fmt.Fprintf(&b, "M-SEARCH * HTTP/1.1\r\nHOST: %v\r\nMAN: \"ssdp:discover\"\r\n", host)
	if to.IsMulticast() {
		b.WriteString("MX: 1\r\n")
	}
	fmt.Fprintf(&b, "ST: %s\r\n\r\n", target)
	return b.Bytes()
}

// parseAnswer reads the answer to a search (§1.3.3). Whether its URL leads to the
// sender is for the caller to see.
func parseAnswer(b []byte) (Answer, error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	line, err := r.ReadLine()
	if err != nil {
		return Answer{}, fmt.Errorf("answer to a search: %w", err)
	}
	if f := strings.Fields(line); len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/1.") || f[1] != "200" {
		return Answer{}, fmt.Errorf("answer to a search begins with %.40q", line)
	}
	// The empty line at the end is missing in some answers.
	h, err := r.ReadMIMEHeader()
	location := h.Get("Location")
	if location == "" {
		return Answer{}, errors.Join(errors.New("answer to a search has no location"), err)
	}
	u, err := url.Parse(location)
	if err != nil {
		return Answer{}, fmt.Errorf("answer to a search: location: %w", err)
	}
	return Answer{Location: u, Boot: clean(h.Get("Bootid.upnp.org")), Server: clean(h.Get("Server"))}, nil
}

// searcher is a socket that searches.
type searcher struct {
	link Link
	conn net.PacketConn
	stop func() bool
}

// newSearcher opens the socket. It is closed with ctx at the latest.
func newSearcher(ctx context.Context, l Link) (*searcher, error) {
	network := "udp4"
	if l.Local.Addr().Is6() {
		network = "udp6"
	}
	c, err := l.Network.ListenPacket(ctx, network, netip.AddrPortFrom(l.Local.Addr(), 0))
	if err != nil {
		return nil, fmt.Errorf("search for UPnP devices: %w", err)
	}
	if u, ok := c.(*net.UDPConn); ok && network == "udp4" {
		// Not every system takes the interface from the socket's address. Where this
		// fails the search goes to the gateway all the same, which matters more.
		if i, err := net.InterfaceByName(l.Interface); err == nil {
			_ = ipv4.NewPacketConn(u).SetMulticastInterface(i)
		}
	}
	s := &searcher{link: l, conn: c}
	s.stop = context.AfterFunc(ctx, func() { _ = c.Close() })
	return s, nil
}

func (s *searcher) close() {
	s.stop()
	_ = s.conn.Close()
}

// send sends one round: to the gateway, and with group to all devices of the link.
// It is an error only if nothing left.
func (s *searcher) send(group bool) error {
	to := []netip.Addr{s.link.Gateway}
	switch {
	case !group:
	case s.link.Local.Addr().Is4():
		to = append(to, group4)
	default:
		to = append(to, group6.WithZone(s.link.Interface))
	}
	var errs []error
	sent := false
	for _, target := range targets {
		for _, a := range to {
			_, err := s.conn.WriteTo(search(a, target), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, ssdpPort)))
			sent = sent || err == nil
			errs = append(errs, err)
		}
	}
	if sent {
		return nil
	}
	return fmt.Errorf("search for UPnP devices: %w", errors.Join(errs...))
}

// receive waits until a deadline for an answer from the link whose URL leads to
// its sender. Everything else is as if it had not come; why is the last error then.
func (s *searcher) receive(until time.Time) (Answer, error) {
	if err := s.conn.SetReadDeadline(until); err != nil {
		return Answer{}, err
	}
	var ignored error
	b := make([]byte, maxDatagram)
	for failures := 0; ; {
		n, from, err := s.conn.ReadFrom(b)
		if err != nil {
			if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
				return Answer{}, errors.Join(ErrSilent, ignored)
			}
			// Some systems hand us an ICMP error, of a gateway that does not listen;
			// somebody else may.
			if failures++; errors.Is(err, net.ErrClosed) || failures > maxFailures {
				return Answer{}, errors.Join(err, ignored)
			}
			continue
		}
		a, err := s.accept(b[:n], from)
		if err == nil {
			return a, nil
		}
		ignored = err
	}
}

func (s *searcher) accept(b []byte, from net.Addr) (Answer, error) {
	u, ok := from.(*net.UDPAddr)
	if !ok {
		return Answer{}, fmt.Errorf("answer from %T", from)
	}
	sender := u.AddrPort().Addr().Unmap()
	if !s.link.near(sender) {
		return Answer{}, fmt.Errorf("answer to a search from %v, which is not on the link", sender)
	}
	if sender.Is6() && sender.IsLinkLocalUnicast() {
		sender = sender.WithZone(s.link.Interface)
	}
	a, err := parseAnswer(b)
	if err != nil {
		return Answer{}, err
	}
	if _, err := locate(a.Location, sender); err != nil {
		return Answer{}, err
	}
	a.From = sender
	return a, nil
}
