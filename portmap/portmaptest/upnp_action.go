package portmaptest

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bodkin/portmap"
)

// argument is an element of an action or of its answer.
type argument struct{ name, value string }

// upnpError is a code with which an action is refused.
type upnpError int

func (e upnpError) Error() string {
	return map[upnpError]string{
		401: "Invalid Action", 402: "Invalid Args", 606: "Action not authorized", 701: "PinholeSpaceExhausted",
		703: "InboundPinholeNotAllowed", 704: "NoSuchEntry", 713: "SpecifiedArrayIndexInvalid", 714: "NoSuchEntryInArray",
		718: "ConflictInMappingEntry", 724: "SamePortValuesRequired", 725: "OnlyPermanentLeasesSupported", 728: "NoPortMapsAvailable",
	}[e]
}

// act does what a request for an action says.
func (r *Router) act(w http.ResponseWriter, what string, body []byte, from netip.Addr, b Behavior) {
	kind, action, ok := strings.Cut(strings.Trim(what, `"`), "#")
	if b.Garbage || !ok {
		_, _ = io.WriteString(w, "<garbage")
		return
	}
	if b.UPnP.Fault != "" {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, b.UPnP.Fault)
		return
	}
	in, err := arguments(body, action)
	var out []argument
	if err == nil {
		r.mu.Lock()
		r.expire(time.Now())
		out, err = r.do(time.Now(), kind, action, from, in)
		r.mu.Unlock()
	}
	if err != nil {
		code := upnpError(402)
		errors.As(err, &code)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, fault, int(code), code)
		return
	}
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" `+
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%sResponse xmlns:u="%s">`, action, kind)
	for _, a := range out {
		_, _ = fmt.Fprintf(w, "<%s>", a.name)
		_ = xml.EscapeText(w, []byte(a.value))
		_, _ = fmt.Fprintf(w, "</%s>", a.name)
	}
	_, _ = fmt.Fprintf(w, "</u:%sResponse></s:Body></s:Envelope>", action)
}

const fault = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
	`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><s:Fault><faultcode>s:Client</faultcode>` +
	`<faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">` +
	`<errorCode>%d</errorCode><errorDescription>%v</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`

// arguments reads an action's.
func arguments(body []byte, action string) (map[string]string, error) {
	type element struct {
		XMLName xml.Name
		Value   string    `xml:",chardata"`
		Inner   []element `xml:",any"`
	}
	var envelope struct {
		Body struct {
			Action element `xml:",any"`
		}
	}
	if err := xml.Unmarshal(body, &envelope); err != nil || envelope.Body.Action.XMLName.Local != action {
		return nil, upnpError(402)
	}
	out := make(map[string]string)
	for _, a := range envelope.Body.Action.Inner {
		out[a.XMLName.Local] = a.Value
	}
	return out, nil
}

// do does an action; the Router's mutex is held.
func (r *Router) do(now time.Time, kind, action string, from netip.Addr, in map[string]string) ([]argument, error) {
	u := r.behavior.UPnP
	switch {
	case kind == firewall && u.version() == 2:
		return r.doFirewall(now, action, from, in)
	case kind != u.connection():
		return nil, upnpError(401)
	}
	switch action {
	case "GetExternalIPAddress":
		a := r.external()
		if r.behavior.Offline {
			a = netip.IPv4Unspecified()
		}
		return []argument{{"NewExternalIPAddress", a.String()}}, nil
	case "GetStatusInfo":
		status := "Connected"
		if r.behavior.Offline {
			status = "Disconnected"
		}
		return []argument{
			{"NewConnectionStatus", status},
			{"NewLastConnectionError", "ERROR_NONE"},
			{"NewUptime", strconv.Itoa(int(now.Sub(r.booted) / time.Second))},
		}, nil
	case "AddAnyPortMapping":
		if u.version() == 1 {
			return nil, upnpError(401)
		}
		port, err := r.addMapping(now, from, in, false)
		return []argument{{"NewReservedPort", strconv.Itoa(int(port))}}, err
	case "AddPortMapping":
		_, err := r.addMapping(now, from, in, true)
		return nil, err
	case "DeletePortMapping":
		i, err := r.entry(in)
		if err != nil {
			return nil, err
		}
		r.drop(i)
		return nil, nil
	case "GetSpecificPortMappingEntry":
		i, err := r.entry(in)
		if err != nil {
			return nil, err
		}
		return r.mappings[i].entry(now), nil
	case "GetGenericPortMappingEntry":
		i, err := strconv.Atoi(in["NewPortMappingIndex"])
		all := slices.DeleteFunc(slices.Clone(r.mappings), func(m Mapping) bool { return !m.External.Addr().Is4() })
		if err != nil || i < 0 || i >= len(all) {
			return nil, upnpError(713)
		}
		m := all[i]
		return append([]argument{
			{"NewRemoteHost", ""},
			{"NewExternalPort", strconv.Itoa(int(m.External.Port()))},
			{"NewProtocol", strings.ToUpper(m.Transport.String())},
		}, m.entry(now)...), nil
	}
	return nil, upnpError(401)
}

func (m Mapping) entry(now time.Time) []argument {
	lease := 0
	if !m.Expires.IsZero() {
		lease = int(m.Expires.Sub(now) / time.Second)
	}
	return []argument{
		{"NewInternalPort", strconv.Itoa(int(m.Internal.Port()))},
		{"NewInternalClient", m.Internal.Addr().String()},
		{"NewEnabled", "1"},
		{"NewPortMappingDescription", m.Name},
		{"NewLeaseDuration", strconv.Itoa(lease)},
	}
}

// entry is where the mapping is that an action names.
func (r *Router) entry(in map[string]string) (int, error) {
	t, external, err := port(in["NewProtocol"], in["NewExternalPort"])
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(r.mappings, func(m Mapping) bool {
		return m.Transport == t && m.External.Port() == external && m.External.Addr().Is4()
	})
	if i < 0 {
		return 0, upnpError(714)
	}
	return i, nil
}

func (r *Router) addMapping(now time.Time, from netip.Addr, in map[string]string, exact bool) (uint16, error) {
	b := r.behavior
	t, external, err := port(in["NewProtocol"], in["NewExternalPort"])
	_, internal, err2 := port(in["NewProtocol"], in["NewInternalPort"])
	client, err3 := netip.ParseAddr(in["NewInternalClient"])
	seconds, err4 := strconv.ParseUint(in["NewLeaseDuration"], 10, 32)
	switch {
	case errors.Join(err, err2, err3, err4) != nil:
		return 0, upnpError(402)
	case b.Deny || client != from:
		return 0, upnpError(606)
	case b.Full:
		return 0, upnpError(728)
	case b.UPnP.OnlyPermanent && seconds != 0:
		return 0, upnpError(725)
	case b.UPnP.SamePort && external != internal:
		return 0, upnpError(724)
	}
	to := netip.AddrPortFrom(client, internal)
	if i := r.at(t, to); i < 0 || r.mappings[i].External.Port() != external { // else it is renewed
		free, ok := r.free(t, external, exact)
		if !ok {
			return 0, upnpError(718)
		}
		external = free
	}
	m := Mapping{
		Protocol: portmap.UPnP, Transport: t, Internal: to, External: netip.AddrPortFrom(r.external(), external),
		Name: in["NewPortMappingDescription"],
	}
	if seconds != 0 {
		m.Expires = now.Add(r.granted(uint32(seconds)))
	}
	r.put(m)
	return external, nil
}

func port(protocol, number string) (portmap.Transport, uint16, error) {
	n, err := strconv.ParseUint(number, 10, 16)
	switch {
	case err != nil || n == 0:
	case protocol == "UDP" || protocol == "17":
		return portmap.UDP, uint16(n), nil
	case protocol == "TCP" || protocol == "6":
		return portmap.TCP, uint16(n), nil
	}
	return 0, 0, upnpError(402)
}

// doFirewall does an action of WANIPv6FirewallControl.
func (r *Router) doFirewall(now time.Time, action string, from netip.Addr, in map[string]string) ([]argument, error) {
	b := r.behavior
	number := func(name string) int { n, _ := strconv.Atoi(in[name]); return n }
	at := slices.IndexFunc(r.mappings, func(m Mapping) bool { return m.pinhole != 0 && m.pinhole == number("UniqueID") })
	lease := r.granted(uint32(number("NewLeaseTime") + number("LeaseTime")))
	switch action {
	case "GetFirewallStatus":
		return []argument{{"FirewallEnabled", yes(!b.UPnP.NoFirewall)}, {"InboundPinholeAllowed", yes(!b.UPnP.ShutFirewall)}}, nil
	case "AddPinhole":
		t, p, err := port(in["Protocol"], in["InternalPort"])
		client, err2 := netip.ParseAddr(in["InternalClient"])
		switch {
		case errors.Join(err, err2) != nil || lease == 0:
			return nil, upnpError(402)
		case b.Deny || client != from:
			return nil, upnpError(606)
		case b.Full:
			return nil, upnpError(701)
		case b.UPnP.ShutFirewall:
			return nil, upnpError(703)
		}
		to := netip.AddrPortFrom(client, p)
		r.pinholes++
		r.put(Mapping{
			Protocol: portmap.UPnP, Transport: t, Internal: to, External: to, Expires: now.Add(lease), pinhole: r.pinholes,
		})
		return []argument{{"UniqueID", strconv.Itoa(r.pinholes)}}, nil
	}
	if at < 0 {
		return nil, upnpError(704)
	}
	if r.mappings[at].Internal.Addr() != from {
		return nil, upnpError(606)
	}
	switch action {
	case "UpdatePinhole":
		m := r.mappings[at]
		m.Expires = now.Add(lease)
		r.put(m)
		return nil, nil
	case "DeletePinhole":
		r.drop(at)
		return nil, nil
	case "GetPinholePackets":
		return []argument{{"PinholePackets", "0"}}, nil
	case "CheckPinholeWorking":
		return []argument{{"IsWorking", "1"}}, nil
	}
	return nil, upnpError(401)
}

func yes(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
