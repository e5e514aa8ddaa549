package natlab_test

import (
	"fmt"
	"net/netip"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// A box by itself, and the time as its caller says: packets in, packets and a
// verdict out.
func ExampleNAT_Translator() {
	home := natlab.NAT{
		Mapping:   nat.EndpointIndependent,
		Filtering: nat.AddressDependent,
		Ports:     natlab.Ports{Allocation: natlab.Sequential, Delta: 2},
	}
	public := netip.MustParseAddr("203.0.113.1")
	box := home.Translator([]netip.Addr{public}, []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, nil)
	now := time.Now()

	host, server := netip.MustParseAddrPort("192.168.1.2:5000"), netip.MustParseAddrPort("198.51.100.1:3478")
	out, verdict := box.Translate(now, natlab.Inside, natlab.AppendUDP(nil, host, server, 64, []byte("hello")), nil)
	p, _ := natlab.ParsePacket(out[0].Data)
	fmt.Println(verdict.Action, out[0].To, p.From.Addr())

	// A stranger's packet to the same mapping.
	stranger := netip.MustParseAddrPort("192.0.2.9:9")
	out, verdict = box.Translate(now, natlab.Outside, natlab.AppendUDP(nil, stranger, p.From, 64, nil), nil)
	fmt.Println(verdict.Action, len(out), verdict.Reason)

	// Another port of the server: its address is known.
	other := netip.AddrPortFrom(server.Addr(), 9999)
	out, _ = box.Translate(now, natlab.Outside, natlab.AppendUDP(nil, other, p.From, 64, nil), nil)
	p, _ = natlab.ParsePacket(out[0].Data)
	fmt.Println(p.From, "to", p.To)

	for _, m := range box.Mappings(now) {
		fmt.Println(m.Inside, "for", m.Expires.Sub(now))
	}
	// Output:
	// translate outside 203.0.113.1
	// drop 0 filtered: address
	// 198.51.100.1:9999 to 192.168.1.2:5000
	// 192.168.1.2:5000 for 5m0s
}

// A preset with one thing changed.
func ExamplePreset_NAT() {
	box := natlab.OpenWrt.NAT()
	box.UDP.Replied = 10 * time.Second
	fmt.Println(box.Check(), natlab.OpenWrt.Kernel(), box.Kernel())
	// Output: <nil> true <nil>
}
