package igd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	// maxDescription bounds a device's description: the longest that were seen have
	// 20 KB.
	maxDescription = 100 << 10
	// maxAnswer bounds the answer to an action. None has more than a few lines.
	maxAnswer = 32 << 10
	// maxHeader bounds the header of an HTTP answer.
	maxHeader = 16 << 10
	// maxRedirects bounds how often a device may say that its description is
	// elsewhere.
	maxRedirects = 2
	// exchangeTime bounds one request and its answer. Small routers take seconds.
	exchangeTime = 8 * time.Second
)

// Network makes the sockets.
type Network interface {
	// ListenPacket opens a UDP socket; network is udp4 or udp6.
	ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error)
	// Dial connects from an address of ours; network is tcp4 or tcp6. The source
	// matters: a router opens an IPv6 pinhole only to the address that asks.
	Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error)
}

// Link is where a router is looked for.
type Link struct {
	Network   Network
	Interface string
	// Local is the address of ours that asks, with the length of its link's prefix.
	Local netip.Prefix
	// Gateway is the router that packets leave by. If it is link-local it has its zone.
	Gateway netip.Addr
}

// near reports whether an address is on the gateway's own link.
func (l Link) near(a netip.Addr) bool {
	return same(a, l.Gateway) || l.Local.Masked().Contains(a) || a.Is6() && a.IsLinkLocalUnicast() && l.Local.Addr().Is6()
}

// same compares addresses whatever their zones: one link is one zone.
func same(a, b netip.Addr) bool { return a.WithZone("") == b.WithZone("") }

// errElsewhere is what became of a URL that leads to another host.
var errElsewhere = errors.New("leads to another host and is not followed")

// locate takes a URL apart that must lead to a host, and finds its endpoint there.
func locate(u *url.URL, host netip.Addr) (netip.AddrPort, error) {
	if u.Scheme != "http" || u.User != nil {
		return netip.AddrPort{}, fmt.Errorf("%.100q is no plain http URL", u.String())
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || !same(a.Unmap(), host) {
		return netip.AddrPort{}, fmt.Errorf("%.100q from %v %w", u.String(), host, errElsewhere)
	}
	port := uint16(80)
	if s := u.Port(); s != "" {
		p, err := netip.ParseAddrPort("0.0.0.0:" + s)
		if err != nil || p.Port() == 0 {
			return netip.AddrPort{}, fmt.Errorf("%.100q has no port", u.String())
		}
		port = p.Port()
	}
	return netip.AddrPortFrom(host, port), nil
}

// client is an HTTP client that reaches one host and reads a bounded answer.
// It keeps no connection open, so nothing is left when a request is done.
func (l Link) client(host netip.Addr, limit int64) http.Client {
	transport := &http.Transport{
		// No proxy: it would be asked to go where we do not.
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			p, err := netip.ParseAddrPort(to)
			if err != nil {
				return nil, err
			}
			network := "tcp4"
			if host.Is6() {
				network = "tcp6"
			}
			return l.Network.Dial(ctx, network, l.Local.Addr(), netip.AddrPortFrom(host, p.Port()))
		},
		DisableKeepAlives:      true,
		DisableCompression:     true, // the limit is one of what arrives and of what it becomes
		MaxResponseHeaderBytes: maxHeader,
	}
	return http.Client{
		Transport: &fence{host: host, limit: limit, next: transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects || r.Method != http.MethodGet || via[0].Method != http.MethodGet {
				return http.ErrUseLastResponse
			}
			return nil // and the fence stops it if it leads elsewhere
		},
		Timeout: exchangeTime,
	}
}

// fence lets requests through to one host only, and their answers up to a limit.
type fence struct {
	host  netip.Addr
	limit int64
	next  http.RoundTripper
}

func (f *fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := locate(r.URL, f.host); err != nil {
		return nil, err
	}
	answer, err := f.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = &bounded{answer.Body, f.limit}
	return answer, nil
}

// bounded is a body that ends in an error when it is too long.
type bounded struct {
	io.ReadCloser
	left int64
}

var errTooLong = errors.New("the answer is too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
