package nat

import (
	"testing"
	"time"
)

func TestProfileOfTCP(t *testing.T) {
	t.Parallel()
	hard := Profile{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: 2}}
	easy := Profile{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent}
	at := func(i int) time.Time { return time.Unix(1000, 0).Add(time.Duration(i) * time.Second / 2) }
	made := func(ports ...uint16) (out []Connection) {
		for i := range ports {
			out = append(out, Connection{uint16(40000 + 7*i), ports[i], at(i)})
		}
		return out
	}
	for name, c := range map[string]struct {
		udp  Profile
		made []Connection
		want Profile
	}{
		"keeps ports":       {easy, made(40000, 40007, 40014), Profile{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Preserving}}},
		"one was taken":     {Profile{}, made(40000, 999, 40014), Profile{Mapping: EndpointIndependent, Ports: Ports{Allocation: Preserving}}},
		"counts":            {Profile{}, made(2000, 2001, 2002), Profile{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: 1, Last: 2002}}},
		"counts down":       {Profile{}, made(2000, 1999, 1998), Profile{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: -1, Last: 1998}}},
		"counts over zero":  {Profile{}, made(65534, 65535, 0), Profile{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: 1, Last: 0}}},
		"steps as UDP does": {hard, made(2000, 2004, 2008), Profile{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: 2, Last: 2008, Noise: 200}}},
		"others, too":       {Profile{}, made(2000, 2001, 2012), Profile{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Sequential, Delta: 1, Last: 2012, Noise: 1000}}},
		"no order":          {hard, made(2000, 50000, 30000), Profile{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Random}}},
		"back and forth":    {Profile{}, made(2000, 2005, 2003), Profile{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Random}}},
		"one":               {hard, made(2000), Profile{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent}},
		"none":              {easy, nil, Profile{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent}},
	} {
		if got := ProfileOfTCP(c.udp, c.made); got != c.want {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, c.want)
		}
	}
	if EnoughConnections(made(1, 2)) || !EnoughConnections(made(1, 2, 3)) {
		t.Error("three are enough")
	}
}
