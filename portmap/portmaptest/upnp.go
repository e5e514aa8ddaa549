package portmaptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// UPnP is how a Router speaks UPnP. The zero UPnP is a good router's of version 2.
type UPnP struct {
	Off bool
	// Version1 is a router of IGD version 1: no AddAnyPortMapping, no pinholes.
	Version1 bool
	// PPP is one whose connection is a WANPPPConnection. It implies Version1.
	PPP bool
	// OnlyPermanent refuses every lease that ends.
	OnlyPermanent bool
	// SamePort maps a port only to the same one.
	SamePort bool
	// NoFirewall does not filter IPv6. ShutFirewall does, and opens nothing.
	NoFirewall, ShutFirewall bool

	// Location is where it says its description is, if not empty, and Redirect
	// where a request for that is sent. Control is where actions go.
	Location, Redirect, Control string
	// Description writes what it describes itself as, if not nil.
	Description func(w io.Writer)
	// Fault is what it answers to each action, if not empty, with HTTP status 500.
	Fault string
}

const (
	ssdpPort = 1900
	httpPort = 49152

	wanIP    = "urn:schemas-upnp-org:service:WANIPConnection:"
	wanPPP   = "urn:schemas-upnp-org:service:WANPPPConnection:1"
	firewall = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
	gateway  = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
)

// AnswerSearch is what the router says to a search for UPnP devices, a packet to
// its port 1900 or the multicast group's, nil for nothing, and how much later. Over
// IPv6 it says where it is reached by IPv6.
func (r *Router) AnswerSearch(from netip.AddrPort, b []byte) (answer []byte, later time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard++
	d := r.behavior
	if d.Silent || d.UPnP.Off {
		return nil, 0
	}
	if d.Garbage {
		return []byte("HTTP/1.1 200 OK\r\nLOCATION\x00: \xff\r\n"), d.Delay
	}
	q := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	line, err := q.ReadLine()
	if err != nil || line != "M-SEARCH * HTTP/1.1" {
		return nil, 0
	}
	h, err := q.ReadMIMEHeader()
	if target := h.Get("St"); err != nil || h.Get("Man") != `"ssdp:discover"` ||
		target != gateway+"1" && (target != gateway+"2" || d.UPnP.version() == 1) {
		return nil, 0
	}
	location := d.UPnP.Location
	if location == "" {
		location = "http://" + netip.AddrPortFrom(r.inside(from.Addr()), httpPort).String() + "/root.xml"
	}
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\nLOCATION: %s\r\nSERVER: Fake/1 UPnP/1.1\r\n"+
		"ST: %s\r\nUSN: uuid:0b0d4171-0000-4000-8000-000000000001::%s\r\nBOOTID.UPNP.ORG: %d\r\n\r\n",
		location, h.Get("St"), h.Get("St"), r.booted.Unix()), d.Delay
}

func (u UPnP) version() int {
	if u.Version1 || u.PPP {
		return 1
	}
	return 2
}

func (u UPnP) connection() string {
	if u.PPP {
		return wanPPP
	}
	return wanIP + strconv.Itoa(u.version())
}

// searched reports whether a packet is to all UPnP devices of a link.
func searched(to netip.AddrPort) bool {
	a := to.Addr().WithZone("").String()
	return to.Port() == ssdpPort && (a == "239.255.255.250" || a == "ff02::c")
}

// inside is the router's address of a client's family.
func (r *Router) inside(client netip.Addr) netip.Addr {
	if client.Is6() {
		return r.options.Inside6
	}
	return r.options.Inside
}

// ServeHTTP is the router's description, and its actions.
func (r *Router) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	from, err := netip.ParseAddrPort(q.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// Once all is read, the context ends with the connection.
	body, err := io.ReadAll(io.LimitReader(q.Body, 1<<16))
	if err != nil {
		return
	}
	r.mu.Lock()
	b := r.behavior
	r.heard++
	r.mu.Unlock()
	select {
	case <-time.After(b.Delay):
	case <-q.Context().Done():
		return
	}
	w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	switch {
	case q.URL.Path == "/root.xml" && b.UPnP.Redirect != "":
		http.Redirect(w, q, b.UPnP.Redirect, http.StatusFound)
	case q.URL.Path == "/root.xml" && b.UPnP.Description != nil:
		b.UPnP.Description(w)
	case q.URL.Path == "/root.xml" || q.URL.Path == "/moved.xml":
		_, _ = io.WriteString(w, b.UPnP.describe())
	case strings.HasPrefix(q.URL.Path, "/ctl/") && q.Method == http.MethodPost:
		r.act(w, q.Header.Get("Soapaction"), body, from.Addr(), b)
	default:
		http.NotFound(w, q)
	}
}

func (u UPnP) describe() string {
	control := u.Control
	if control == "" {
		control = "/ctl/ip"
	}
	services := service(u.connection(), control)
	second := ""
	if u.version() == 2 {
		second = service(firewall, "/ctl/fw")
	}
	v := u.version()
	return fmt.Sprintf(`<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>1</minor></specVersion>
<device><deviceType>%s%d</deviceType><friendlyName>Fake router</friendlyName><manufacturer>Nobody</manufacturer>
<modelName>Fake</modelName><UDN>uuid:0b0d4171-0000-4000-8000-000000000001</UDN><deviceList>
<device><deviceType>urn:schemas-upnp-org:device:WANDevice:%d</deviceType><friendlyName>WAN</friendlyName><deviceList>
<device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:%d</deviceType><friendlyName>Connection</friendlyName>
<serviceList>%s%s</serviceList></device></deviceList></device></deviceList></device></root>
`, gateway, v, v, v, services, second)
}

func service(kind, control string) string {
	return "<service><serviceType>" + kind + "</serviceType><serviceId>urn:upnp-org:serviceId:1</serviceId>" +
		"<SCPDURL>/scpd.xml</SCPDURL><controlURL>" + control + "</controlURL><eventSubURL>/evt</eventSubURL></service>"
}

// dial connects a host of the network in memory to the router's HTTP server.
func (n *network) dial(network string, to netip.AddrPort) (net.Conn, error) {
	r := n.router
	r.mu.Lock()
	b, o := r.behavior, r.options
	r.mu.Unlock()
	from := o.Host
	if to.Addr().Is6() {
		from = o.Host6
	}
	if to != netip.AddrPortFrom(r.inside(to.Addr()), httpPort) || b.Silent || b.UPnP.Off {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("nobody listens there")}
	}
	near, far := net.Pipe()
	go func() {
		l := &single{conn: named{far, net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 50000))}}
		_ = http.Serve(l, r)
	}()
	return near, nil
}

// single is a listener of one connection.
type single struct{ conn net.Conn }

func (l *single) Accept() (net.Conn, error) {
	c := l.conn
	if c == nil {
		return nil, net.ErrClosed
	}
	l.conn = nil
	return c, nil
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

// named is a connection that knows its other end.
type named struct {
	net.Conn
	remote net.Addr
}

func (c named) RemoteAddr() net.Addr { return c.remote }
