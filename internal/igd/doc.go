// Package igd asks routers that are UPnP Internet Gateway Devices, versions 1 and
// 2, for mappings and IPv6 pinholes. Package portmap is what people import; this
// one only speaks the protocol.
//
// Everything that is read here comes from whoever answers first on the link, so
// none of it is trusted further than that. Answers to a search count only if they
// come from the gateway or from its own link; a URL is followed only to the very
// address that named it, wherever it stands: in an answer, in a description, or in
// a redirect. What is read has an end, in bytes and in depth, and so has the time
// that it may take.
//
//	link.go         where to look, and the HTTP client that stays there
//	ssdp.go         the search (UPnP Device Architecture 1.1 §1.3)
//	description.go  what a device has (§2.3)
//	device.go       Find: the device that is a router
//	mapping.go      WANIPConnection:1 and :2, WANPPPConnection:1
//	pinhole.go      WANIPv6FirewallControl:1
//	errors.go       what routers refuse
package igd
