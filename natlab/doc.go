// Package natlab describes networks with NATs in them, for tests of everything
// that has to cross one: a public core, boxes that translate or filter, and
// hosts behind them. A bed makes such a network real: natlab/netbed builds it of
// network namespaces, with the kernel's own NAT.
//
//	topology := natlab.TwoHomes(natlab.Options{})
//	lab, err := netbed.Start(ctx, topology)
//	conn, err := lab.Host("a").ListenPacket(ctx, "udp4", netip.AddrPort{})
package natlab
