package natlab_test

import (
	"testing"

	"bodkin/nat"
	"bodkin/natlab"
)

// RFC 4787 §4.1: "Endpoint-Independent Mapping: The NAT reuses the port mapping
// for subsequent packets sent from the same internal IP address and port (X:x) to
// any external IP address and port." Address-Dependent: "to the same external IP
// address, regardless of the external port." Address and Port-Dependent: "to the
// same external IP address and port while the mapping is still active."
func TestMapping(t *testing.T) {
	t.Parallel()
	for mapping, want := range map[nat.Behavior][3]bool{ // same port for: the same, another port, another address
		nat.EndpointIndependent:     {true, true, true},
		nat.AddressDependent:        {true, true, false},
		nat.AddressAndPortDependent: {true, false, false},
	} {
		b := newLoneBox(t, natlab.NAT{
			Mapping: mapping, Filtering: nat.EndpointIndependent, Ports: natlab.Ports{Allocation: natlab.Sequential},
		})
		from := endAt(hostA, 5000)
		first := b.mapped(from, endAt(peerX, 1))
		got := [3]bool{
			first == b.mapped(from, endAt(peerX, 1)),
			first == b.mapped(from, endAt(peerX, 2)),
			first == b.mapped(from, endAt(peerY, 1)),
		}
		if got != want {
			t.Errorf("%v: same mapping %v, want %v", mapping, got, want)
		}
	}
}

// RFC 4787 §5: Endpoint-Independent Filtering "filters out only packets not
// destined to the internal address and port X:x, regardless of the external IP
// address and port source"; Address-Dependent lets in whoever "X:x previously has
// sent packets to ... (independently of the port used)"; Address and
// Port-Dependent also looks at the port.
func TestFiltering(t *testing.T) {
	t.Parallel()
	for filtering, want := range map[nat.Behavior][3]bool{
		nat.EndpointIndependent:     {true, true, true},
		nat.AddressDependent:        {true, true, false},
		nat.AddressAndPortDependent: {true, false, false},
	} {
		for _, mapping := range []nat.Behavior{nat.None, nat.EndpointIndependent, nat.AddressAndPortDependent} {
			b := newLoneBox(t, natlab.NAT{Mapping: mapping, Filtering: filtering})
			if b.reaches(endAt(peerX, 1), endAt(ourAddress, 5000)) {
				t.Errorf("%v, %v: a packet came in without a mapping", mapping, filtering)
			}
			m := b.mapped(endAt(hostA, 5000), endAt(peerX, 1))
			got := [3]bool{b.reaches(endAt(peerX, 1), m), b.reaches(endAt(peerX, 2), m), b.reaches(endAt(peerY, 1), m)}
			if got != want {
				t.Errorf("%v, %v: lets in %v, want %v", mapping, filtering, got, want)
			}
		}
	}
}
