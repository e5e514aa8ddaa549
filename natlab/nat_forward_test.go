package natlab_test

import (
	"net/netip"
	"testing"

	"bodkin/natlab"
)

// What a router was asked to forward arrives from everybody, whatever the box does
// otherwise, and is answered from where it came in.
func TestForwardedPortIsOpenToEverybody(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.SymmetricRandom, natlab.Linux, natlab.PortRestricted} {
		t.Run(string(preset), func(t *testing.T) {
			t.Parallel()
			b := newLoneBox(t, preset.NAT())
			port, server := endAt(ourAddress, 7000), endAt(hostA, 5000)
			if b.reaches(endAt(peerX, 1), port) {
				t.Fatal("open before it was forwarded")
			}
			if err := b.Forward(natlab.ProtocolUDP, 7000, server); err != nil {
				t.Fatal(err)
			}
			b.mapped(server, endAt(peerY, 9)) // other flows go on as they do
			for _, stranger := range []netip.AddrPort{endAt(peerX, 2), endAt(peerY, 3)} {
				if got := b.in(packetUDP(stranger, port, "in")); got != server {
					t.Errorf("from %v to %v, want %v", stranger, got, server)
				}
				if got := b.mapped(server, stranger); got != port {
					t.Errorf("answered from %v, want %v", got, port)
				}
			}
			if got := b.in(packetTCP(endAt(peerX, 2), port, "S")); got == server {
				t.Error("TCP is forwarded like UDP")
			}
			if err := b.Forward(natlab.ProtocolUDP, 7000, netip.AddrPort{}); err != nil {
				t.Fatal(err)
			}
			if b.in(packetUDP(endAt(peerX, 4), port, "in")) == server {
				t.Error("open after it was taken back")
			}
			if b.mapped(server, endAt(peerX, 2)) == port {
				t.Error("a flow goes on after the port was taken back")
			}
		})
	}
}

func TestForwardedPortIsNobodyElses(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.PortRestricted.NAT())
	if err := b.Forward(natlab.ProtocolUDP, 7000, endAt(hostA, 5000)); err != nil {
		t.Fatal(err)
	}
	if got := b.mapped(endAt(hostB, 7000), endAt(peerX, 1)); got.Port() == 7000 {
		t.Errorf("another host was mapped to %v", got)
	}
	taken := b.mapped(endAt(hostB, 8000), endAt(peerX, 1)).Port()
	if b.Forward(natlab.ProtocolUDP, taken, endAt(hostA, 5000)) == nil {
		t.Error("a port in use was forwarded to another host")
	}
	if b.Forward(natlab.ProtocolICMP, 7000, endAt(hostA, 5000)) == nil || b.Forward(natlab.ProtocolTCP, 0, endAt(hostA, 5000)) == nil {
		t.Error("what has no ports was forwarded")
	}
}

func TestRebootForgetsForwardedPorts(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Linux.NAT())
	if err := b.Forward(natlab.ProtocolUDP, 7000, endAt(hostA, 5000)); err != nil {
		t.Fatal(err)
	}
	b.Reboot(b.now, nil)
	if b.reaches(endAt(peerX, 1), endAt(ourAddress, 7000)) {
		t.Error("still forwarded")
	}
}
