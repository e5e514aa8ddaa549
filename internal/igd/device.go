package igd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

// maxDevices bounds the devices of a link that are looked at.
const maxDevices = 8

// rounds are when a search is sent, and when the last of them is given up. A
// device may take a second to answer (MX), a busy one takes three.
var rounds = []time.Duration{0, time.Second, 3 * time.Second, 6 * time.Second}

// Device is a router that can be asked.
type Device struct {
	Addr netip.Addr
	// Name and Model are what the router says of itself, fit to be shown.
	Name, Model string
	// Answer is how it was found.
	Answer Answer

	connection connection
	version2   *internetgateway2.WANIPConnection2        // nil with version 1
	firewall   *internetgateway2.WANIPv6FirewallControl1 // nil without
}

// Find searches the link for a router: the gateway at once, and another device
// of the link only when the gateway turned out to be none. It takes six seconds
// if nobody answers.
func Find(ctx context.Context, l Link) (*Device, error) {
	s, err := newSearcher(ctx, l)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var others []Answer
	var seen []string
	var why error
	start := time.Now()
	for i, end := range rounds[1:] {
		if err := s.send(true); err != nil {
			return nil, err
		}
		for {
			a, err := s.receive(start.Add(end))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				if !errors.Is(err, ErrSilent) {
					return nil, err
				}
				if i+2 == len(rounds) && why == nil {
					why = err
				}
				break
			}
			if key := a.From.String() + a.Location.String(); len(seen) < maxDevices && !slices.Contains(seen, key) {
				seen = append(seen, key)
			} else {
				continue
			}
			if !same(a.From, l.Gateway) {
				others = append(others, a)
				continue
			}
			d, err := l.open(ctx, a)
			if err == nil {
				return d, nil
			}
			why = err
		}
	}
	for _, a := range others {
		d, err := l.open(ctx, a)
		if err == nil {
			return d, nil
		}
		why = err
	}
	return nil, why
}

// Again asks a device that was found whether it is still the same one: with the
// same boot and at the same place. False means that it restarted, and forgot.
// No answer is an error.
func (d *Device) Again(ctx context.Context, l Link) (bool, error) {
	l.Gateway = d.Addr
	s, err := newSearcher(ctx, l)
	if err != nil {
		return false, err
	}
	defer s.close()
	start := time.Now()
	for _, end := range rounds[1:] {
		if err := s.send(false); err != nil {
			return false, err
		}
		for {
			a, err := s.receive(start.Add(end))
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			if errors.Is(err, ErrSilent) {
				break
			}
			if err != nil {
				return false, err
			}
			if same(a.From, d.Addr) {
				return a.Boot == d.Answer.Boot && a.Location.String() == d.Answer.Location.String(), nil
			}
		}
	}
	return false, ErrSilent
}

// open makes a Device of an answer, if it is a router.
func (l Link) open(ctx context.Context, a Answer) (*Device, error) {
	about, err := l.fetch(ctx, a)
	if err != nil {
		return nil, err
	}
	d := &Device{Addr: a.From, Name: about.name, Model: about.model, Answer: a}
	var connections []connection
	var why error
	for _, s := range about.services {
		client, err := l.service(a, about, s)
		if err != nil {
			why = err
			continue
		}
		switch s.kind {
		case internetgateway2.URN_WANIPConnection_2:
			connections = append(connections, &internetgateway2.WANIPConnection2{ServiceClient: client})
		case internetgateway2.URN_WANIPConnection_1:
			connections = append(connections, &internetgateway2.WANIPConnection1{ServiceClient: client})
		case internetgateway2.URN_WANPPPConnection_1:
			connections = append(connections, &internetgateway2.WANPPPConnection1{ServiceClient: client})
		case internetgateway2.URN_WANIPv6FirewallControl_1:
			d.firewall = &internetgateway2.WANIPv6FirewallControl1{ServiceClient: client}
		}
	}
	if d.connection = connected(ctx, connections); d.connection == nil && d.firewall == nil {
		return nil, errors.Join(fmt.Errorf("the UPnP device at %v is no router", a.From), why)
	}
	d.version2, _ = d.connection.(*internetgateway2.WANIPConnection2)
	return d, nil
}

// service is a client of a service, whose URL must lead to where the answer was from.
func (l Link) service(a Answer, about description, s service) (goupnp.ServiceClient, error) {
	u, err := about.controlURL(s, a.Location)
	if err != nil {
		return goupnp.ServiceClient{}, err
	}
	if _, err := locate(u, a.From); err != nil {
		return goupnp.ServiceClient{}, err
	}
	return goupnp.ServiceClient{SOAPClient: &soap.SOAPClient{
		EndpointURL: *u,
		HTTPClient:  l.client(a.From, maxAnswer),
	}}, nil
}

// connected is the connection that packets take: routers list those over cable,
// DSL and telephone, of which one is up. If none says so it is the first.
func connected(ctx context.Context, all []connection) connection {
	if len(all) == 0 {
		return nil
	}
	if len(all) > 1 {
		for _, c := range all[:min(len(all), 4)] {
			if status, _, _, err := c.GetStatusInfoCtx(ctx); err == nil && status == "Connected" {
				return c
			}
		}
	}
	return all[0]
}

// Version is that of the service which maps ports: 1 or 2, or 0 if the device has none.
func (d *Device) Version() int {
	switch {
	case d.version2 != nil:
		return 2
	case d.connection != nil:
		return 1
	}
	return 0
}

// Pinholes reports whether the device opens IPv6 pinholes.
func (d *Device) Pinholes() bool { return d.firewall != nil }
