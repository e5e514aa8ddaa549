package igd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
)

const (
	// maxLease is the longest lease that version 2 has (WANIPConnection:2 §2.3.16).
	maxLease = 604800 * time.Second
	// maxTries bounds the ports that are tried with a router of version 1, which
	// does not choose one itself.
	maxTries = 8
	// entrySlack is how much of a lease may pass until it is looked at.
	entrySlack = 5 * time.Second
	// maxEntries bounds the list of mappings that is read.
	maxEntries = 256
)

// connection is what the services that map ports have in common.
type connection interface {
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, port uint16,
		client string, enabled bool, name string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (
		port uint16, client string, enabled bool, name string, lease uint32, err error)
	GetGenericPortMappingEntryCtx(ctx context.Context, index uint16) (remote string, external uint16, protocol string,
		port uint16, client string, enabled bool, name string, lease uint32, err error)
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetStatusInfoCtx(ctx context.Context) (status, last string, uptime uint32, err error)
}

var (
	_ connection = (*internetgateway2.WANIPConnection1)(nil)
	_ connection = (*internetgateway2.WANIPConnection2)(nil)
	_ connection = (*internetgateway2.WANPPPConnection1)(nil)
)

// Protocols as the services write them.
const (
	UDP = "UDP"
	TCP = "TCP"
)

// Mapping is an entry of a router's table.
type Mapping struct {
	Protocol string
	External uint16
	Internal netip.AddrPort
	// Name is what the router's page shows.
	Name string
	// Lease is how long the entry still lives, in whole seconds; 0 is until it is deleted.
	Lease time.Duration
	// Remote is who may use it, empty for everybody.
	Remote string
	// Enabled is false if the router's owner switched it off.
	Enabled bool
}

// Add asks for a mapping, or renews the one that is there. Unless exactly the
// external port of m is asked for, another one is taken when that is in use. What
// it returns is what the router granted.
func (d *Device) Add(ctx context.Context, m Mapping, exact bool) (Mapping, error) {
	if d.connection == nil {
		return Mapping{}, &Error{Action: "AddPortMapping", Code: NotImplemented, Text: "the router has no such service"}
	}
	m.Enabled, m.Remote = true, ""
	m.Lease = min(m.Lease, maxLease).Round(time.Second)
	if m.Lease > 0 {
		m.Lease = max(m.Lease, time.Second)
	}
	granted, err := d.add(ctx, m, exact)
	if m.Lease > 0 && onlyPermanent(err) {
		m.Lease = 0
		granted, err = d.add(ctx, m, exact)
	}
	if err != nil {
		return Mapping{}, err
	}
	// Some routers shorten a lease, or make it one for ever, without saying so. One
	// that does not show its entries is believed.
	listed, err := d.Entry(ctx, granted.Protocol, granted.External)
	if err == nil && listed.Internal == granted.Internal && (granted.Lease-listed.Lease).Abs() > entrySlack {
		granted.Lease = listed.Lease
	}
	return granted, nil
}

// onlyPermanent reports whether the router may take only leases that last for
// ever: it says so, or it is one of those that just call the number wrong.
func onlyPermanent(err error) bool {
	c := Code(err)
	return c == OnlyPermanent || c == InvalidArgs || c == ActionFailed
}

func (d *Device) add(ctx context.Context, m Mapping, exact bool) (Mapping, error) {
	if d.version2 != nil && !exact {
		port, err := d.version2.AddAnyPortMappingCtx(ctx, m.Remote, m.External, m.Protocol, m.Internal.Port(),
			m.Internal.Addr().String(), true, m.Name, uint32(m.Lease/time.Second))
		err = explain(ctx, "AddAnyPortMapping", err)
		if err == nil && port == 0 {
			err = errors.New("AddAnyPortMapping: the router granted port 0")
		}
		if err == nil {
			m.External = port
			return m, nil
		}
		// Some call themselves version 2 without having the action.
		if c := Code(err); c != InvalidAction && c != NotImplemented {
			return Mapping{}, err
		}
	}
	for try := 1; ; try++ {
		err := d.addAt(ctx, m)
		switch Code(err) {
		case Conflict, ConflictOther:
			if !exact && try < maxTries {
				m.External = uint16(1024 + rand.N(1<<16-1024))
				continue
			}
		case SamePortRequired:
			if !exact && m.External != m.Internal.Port() && try < maxTries {
				m.External = m.Internal.Port()
				continue
			}
		}
		return m, err
	}
}

// addAt asks for one external port. Routers of version 1 may give us a port that
// another host has, and take it from there: so it is looked at before.
func (d *Device) addAt(ctx context.Context, m Mapping) error {
	there, err := d.Entry(ctx, m.Protocol, m.External)
	if err == nil && there.Internal != m.Internal {
		return &Error{Action: "AddPortMapping", Code: Conflict, Text: fmt.Sprintf("the port is mapped to %v", there.Internal)}
	}
	if ctx.Err() != nil {
		return err
	}
	err = d.connection.AddPortMappingCtx(ctx, m.Remote, m.External, m.Protocol, m.Internal.Port(),
		m.Internal.Addr().String(), true, m.Name, uint32(m.Lease/time.Second))
	return explain(ctx, "AddPortMapping", err)
}

// Delete takes a mapping back, if it is still the one to the internal endpoint: a
// router of version 1 would also delete another host's. That it is gone is no error.
func (d *Device) Delete(ctx context.Context, m Mapping) error {
	if d.connection == nil {
		return nil
	}
	there, err := d.Entry(ctx, m.Protocol, m.External)
	if Code(err) == NoSuchEntry || err == nil && there.Internal != m.Internal {
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	err = explain(ctx, "DeletePortMapping", d.connection.DeletePortMappingCtx(ctx, "", m.External, m.Protocol))
	if Code(err) == NoSuchEntry {
		return nil
	}
	return err
}

// Entry is the mapping of an external port that serves everybody.
func (d *Device) Entry(ctx context.Context, protocol string, external uint16) (Mapping, error) {
	port, client, enabled, name, lease, err := d.connection.GetSpecificPortMappingEntryCtx(ctx, "", external, protocol)
	if err != nil {
		return Mapping{}, explain(ctx, "GetSpecificPortMappingEntry", err)
	}
	return entry("", external, protocol, port, client, enabled, name, lease)
}

// List reads the router's table: all of it, or up to where the router stops.
func (d *Device) List(ctx context.Context) (all []Mapping, err error) {
	if d.connection == nil {
		return nil, nil
	}
	for i := range uint16(maxEntries) {
		remote, external, protocol, port, client, enabled, name, lease, err := d.connection.GetGenericPortMappingEntryCtx(ctx, i)
		if err = explain(ctx, "GetGenericPortMappingEntry", err); err != nil {
			// The end is IndexInvalid by the book, and also these.
			switch Code(err) {
			case IndexInvalid, NoSuchEntry, InvalidArgs, ActionFailed:
				return all, nil
			}
			return all, err
		}
		m, err := entry(remote, external, protocol, port, client, enabled, name, lease)
		if err != nil {
			continue
		}
		all = append(all, m)
	}
	return all, nil
}

func entry(remote string, external uint16, protocol string, port uint16, client string, enabled bool, name string, lease uint32) (Mapping, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(client))
	if err != nil {
		return Mapping{}, fmt.Errorf("mapping to %.40q, which is no address", client)
	}
	return Mapping{
		Protocol: clean(strings.ToUpper(protocol)), External: external, Internal: netip.AddrPortFrom(a.Unmap(), port),
		Name: clean(name), Lease: time.Duration(lease) * time.Second, Remote: clean(remote), Enabled: enabled,
	}, nil
}

// External is the router's address outside. It is not valid, without an error, if
// the router has none at the moment.
func (d *Device) External(ctx context.Context) (netip.Addr, error) {
	if d.connection == nil {
		return netip.Addr{}, nil
	}
	s, err := d.connection.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, explain(ctx, "GetExternalIPAddress", err)
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("GetExternalIPAddress: %.40q is no address", clean(s))
	}
	if a.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return a.Unmap(), nil
}

// Status is how the router's connection is: Connected, or something else, and for
// how long.
func (d *Device) Status(ctx context.Context) (status string, uptime time.Duration, err error) {
	if d.connection == nil {
		return "", 0, nil
	}
	status, _, seconds, err := d.connection.GetStatusInfoCtx(ctx)
	return clean(status), time.Duration(seconds) * time.Second, explain(ctx, "GetStatusInfo", err)
}
