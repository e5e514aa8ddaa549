package nat

import "time"

// Connection is a TCP connection as the server saw it: from the port Local inside, and
// Seen outside.
type Connection struct {
	Local, Seen uint16
	At          time.Time
}

// tcpSamples is how many connections tell how ports are given.
const tcpSamples = 3

// EnoughConnections reports whether these tell how a NAT gives ports.
func EnoughConnections(made []Connection) bool { return len(made) >= tcpSamples }

// ProfileOfTCP is how a NAT treats TCP, by connections from ports that were new, in the
// order in which they were made. Whether a port is mapped alike to every destination
// they cannot tell: in that TCP is believed to be as UDP (RFC 5382 §4.1, RFC 4787 §4.1),
// and where UDP tells nothing, what counts up is believed to do so for each destination.
func ProfileOfTCP(udp Profile, made []Connection) Profile {
	p := Profile{Mapping: udp.Mapping, Filtering: udp.Filtering}
	kept := 0
	for _, c := range made {
		if c.Local == c.Seen {
			kept++
		}
	}
	if 2*kept > len(made) {
		// One that gives random ports does not give those.
		p.Ports.Allocation = Preserving
		if p.Mapping == Unknown {
			p.Mapping = EndpointIndependent
		}
		return p
	}
	if p.Mapping == Unknown {
		p.Mapping = AddressAndPortDependent
	}
	p.Ports = portsOfTCP(udp.Ports, made)
	return p
}

// portsOfTCP is the sequence of ports, or that there is none.
func portsOfTCP(udp Ports, made []Connection) Ports {
	var least, sum int
	for i := 1; i < len(made); i++ {
		step := int(int16(made[i].Seen - made[i-1].Seen))
		if step == 0 || max(step, -step) > mostStep || least*step < 0 {
			return Ports{Allocation: Random}
		}
		if sum += step; least == 0 || max(step, -step) < max(least, -least) {
			least = step
		}
	}
	if least == 0 {
		return Ports{}
	}
	p := Ports{Allocation: Sequential, Delta: int16(least), Last: made[len(made)-1].Seen}
	if udp.Allocation == Sequential && udp.Delta != 0 && sum%int(udp.Delta) == 0 {
		p.Delta = udp.Delta
	}
	// What others took meanwhile.
	if passed := made[len(made)-1].At.Sub(made[0].At); passed > 0 {
		others := sum/int(p.Delta) - (len(made) - 1)
		p.Noise = uint16(min(max(0, float64(others)*100/passed.Seconds()), 65535))
	}
	return p
}
