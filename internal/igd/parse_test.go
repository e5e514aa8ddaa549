package igd

import (
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	goodAnswer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n" +
		"USN: uuid:0b0d4171-0000-4000-8000-000000000001::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\n" +
		"SERVER: Fake/1 UPnP/1.1\r\nLOCATION: http://192.168.7.1:34355/rootDesc.xml\r\n" +
		"OPT: \"http://schemas.upnp.org/upnp/1/0/\"; ns=01\r\n01-NLS: 17\r\nBOOTID.UPNP.ORG: 17\r\n\r\n"

	goodDescription = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase> http://192.168.7.1:80/x/ </URLBase>` +
		`<device><friendlyName>The &lt;router&gt;</friendlyName><modelName>M1</modelName><deviceList><device><friendlyName>WAN</friendlyName>` +
		`<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>ctl/ip</controlURL></service>` +
		`<service><controlURL>/ctl/fw</controlURL><serviceType>urn:schemas-upnp-org:service:WANIPv6FirewallControl:1</serviceType></service>` +
		`</serviceList></device></deviceList></device></root>`

	goodFault = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>` +
		`<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">` +
		`<errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`

	goodEntry = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:GetSpecificPortMappingEntryResponse ` +
		`xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewInternalPort>27015</NewInternalPort>` +
		`<NewInternalClient>192.168.7.2</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>a game</NewPortMappingDescription>` +
		`<NewLeaseDuration>3600</NewLeaseDuration></u:GetSpecificPortMappingEntryResponse></s:Body></s:Envelope>`
)

func TestSearchIsAsTheBookSays(t *testing.T) {
	t.Parallel()
	const all = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: x\r\n\r\n"
	const one = "M-SEARCH * HTTP/1.1\r\nHOST: [fe80::1]:1900\r\nMAN: \"ssdp:discover\"\r\nST: x\r\n\r\n"
	if got := string(search(group4, "x")); got != all {
		t.Errorf("to all: %q", got)
	}
	if got := string(search(netip.MustParseAddr("fe80::1%lan"), "x")); got != one {
		t.Errorf("to one: %q", got)
	}
}

func TestAnswerIsRead(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]string{
		"whole":                 goodAnswer,
		"without its last line": strings.TrimSuffix(goodAnswer, "\r\n"),
		"with bare newlines":    strings.ReplaceAll(goodAnswer, "\r\n", "\n"),
	} {
		a, err := parseAnswer([]byte(s))
		if err != nil || a.Location.String() != "http://192.168.7.1:34355/rootDesc.xml" || a.Boot != "17" || a.Server != "Fake/1 UPnP/1.1" {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for name, s := range map[string]string{
		"notification": strings.Replace(goodAnswer, "HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1", 1),
		"error":        strings.Replace(goodAnswer, "200 OK", "404 Not Found", 1),
		"no location":  strings.Replace(goodAnswer, "LOCATION", "LOCUTION", 1),
		"no URL":       strings.Replace(goodAnswer, "http://192.168.7.1", "http://[192.168.7.1", 1),
		"nothing":      "",
	} {
		if a, err := parseAnswer([]byte(s)); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestDescriptionIsRead(t *testing.T) {
	t.Parallel()
	at, _ := url.Parse("http://192.168.7.1:5000/root.xml")
	d, err := parseDescription(strings.NewReader(goodDescription))
	if err != nil || d.name != "The <router>" || d.model != "M1" || len(d.services) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	for i, want := range []string{"http://192.168.7.1:80/ctl/ip", "http://192.168.7.1:80/ctl/fw"} {
		if u, err := d.controlURL(d.services[i], at); err != nil || u.String() != want {
			t.Errorf("%v, %v, want %s", u, err, want)
		}
	}
	d.base = ""
	if u, err := d.controlURL(d.services[0], at); err != nil || u.String() != "http://192.168.7.1:5000/ctl/ip" {
		t.Errorf("%v, %v", u, err)
	}
	latin := strings.Replace(goodDescription, `<?xml version="1.0"?>`, `<?xml version="1.0" encoding="ISO-8859-1"?>`, 1)
	d, err = parseDescription(strings.NewReader(strings.Replace(latin, "The", "F\xfcr", 1)))
	if err != nil || d.name != "F?r <router>" {
		t.Errorf("%+v, %v", d, err)
	}
}

// said is a RoundTripper that answers as a router would.
type said struct {
	status int
	body   []byte
}

func (s said) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Status: "x", Body: io.NopCloser(bytes.NewReader(s.body)), ContentLength: -1}, nil
}

// answering is a device of which each action gets the same answer.
func answering(status int, body []byte) *Device {
	host := netip.MustParseAddr("192.168.7.1")
	client := goupnp.ServiceClient{SOAPClient: &soap.SOAPClient{
		EndpointURL: url.URL{Scheme: "http", Host: "192.168.7.1", Path: "/"},
		HTTPClient:  http.Client{Transport: &fence{host: host, limit: maxAnswer, next: said{status, body}}},
	}}
	two := &internetgateway2.WANIPConnection2{ServiceClient: client}
	return &Device{
		Addr: host, connection: two, version2: two,
		firewall: &internetgateway2.WANIPv6FirewallControl1{ServiceClient: client},
	}
}

func TestFaultBecomesAnError(t *testing.T) {
	t.Parallel()
	d := answering(500, []byte(goodFault))
	_, err := d.External(t.Context())
	if Code(err) != Conflict || err.Error() != "GetExternalIPAddress: ConflictInMappingEntry (718)" {
		t.Errorf("%v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(goodAnswer))
	f.Add([]byte("HTTP/1.1 200 OK\nLocation: http://[fe80::1%25lan]:1/\n"))
	host := netip.MustParseAddr("192.168.7.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err != nil {
			return
		}
		shown(t, a.Boot, a.Server)
		if to, err := locate(a.Location, host); err == nil && (to.Addr() != host || to.Port() == 0) {
			t.Errorf("%v leads to %v", a.Location, to)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(goodDescription))
	f.Add([]byte(`<a><b></a></b>`))
	f.Add([]byte(`<!DOCTYPE r [<!ENTITY a "b">]><r>&a;</r>`))
	host := netip.MustParseAddr("192.168.7.1")
	at, _ := url.Parse("http://192.168.7.1/root.xml")
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDescription(bytes.NewReader(b))
		if err != nil {
			return
		}
		shown(t, d.name, d.model)
		if len(d.services) > maxServices {
			t.Errorf("%d services", len(d.services))
		}
		for _, s := range d.services {
			u, err := d.controlURL(s, at)
			if err != nil {
				continue
			}
			if to, err := locate(u, host); err == nil && to.Addr() != host {
				t.Errorf("%v leads to %v", u, to)
			}
		}
	})
}

// All that reads the answer to an action: goupnp's part of it, and ours.
func FuzzAction(f *testing.F) {
	f.Add(500, []byte(goodFault))
	f.Add(200, []byte(goodEntry))
	f.Add(200, []byte(strings.ReplaceAll(goodEntry, "27015", "99999")))
	f.Add(200, []byte("<a"))
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		d := answering(status, b)
		ctx := t.Context()
		m := Mapping{Protocol: UDP, External: 1, Internal: netip.MustParseAddrPort("192.168.7.2:1"), Lease: 60e9}
		_, err1 := d.Add(ctx, m, false)
		all, err2 := d.List(ctx)
		_, err3 := d.External(ctx)
		_, _, err4 := d.Status(ctx)
		_, _, err5 := d.Open(ctx, UDP, netip.MustParseAddrPort("[2001:db8::1]:1"), 60e9)
		_, _, err6 := d.Firewall(ctx)
		if len(all) > maxEntries {
			t.Errorf("%d entries", len(all))
		}
		for _, m := range all {
			shown(t, m.Name, m.Remote, m.Protocol)
		}
		for _, err := range []error{err1, err2, err3, err4, err5, err6} {
			if err != nil {
				if len(err.Error()) > 400 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				shown(t, err.Error()[:min(maxText, len(err.Error()))])
			}
		}
	})
}

// shown checks what a stranger's text becomes before people see it.
func shown(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if len(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("%q would be shown", s)
		}
	}
}
