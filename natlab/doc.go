// Package natlab is networks with NATs in them, for tests of everything that has to
// cross one: a public core, boxes that translate or filter, and hosts behind them.
//
// A [Topology] describes such a network, and [TwoHomes] makes the usual one. What a
// box does is a [NAT], of which the [Presets] are those that are met. A network is
// then built in one of these ways, with the same addresses and, for the same seed,
// links that lose and delay alike:
//
//   - [NewSim]: in virtual time, for state machines that take time as an argument.
//     Hosts have functions for UDP sockets. A second takes a millisecond or less,
//     and runs are the same to the byte.
//   - [NewLive]: on the process's clock, with a [net.PacketConn] for programs with
//     goroutines. In a testing/synctest bubble it takes no time to wait.
//   - natlab/netbed: of Linux network namespaces, in which any program can run, with
//     the kernel's own NAT or with this package's boxes.
//
// All of them drive a [Fabric], which shows each thing that happens to a packet to
// whoever observes it.
//
//	topology.go  what there is
//	address.go   which addresses it has
//	presets.go   the NATs that are met
//	nat.go       what a NAT can be; nat_*.go: how it does it
//	translator.go  a box at work
//	fabric.go    carries packets through a topology
//	line.go      one direction of a link: delay, loss and rate
//	route.go     the core
//	box.go       the router and switch around a translator
//	frame.go     memory for packets
//	observe.go   what happens to packets
//	capture.go   captures for packet analysers
//	packet.go    packets taken apart; icmp.go build.go: and put together
//	stack.go     what a host's system does
//	loop.go      virtual time; sim.go: a topology in it
//	live.go      sockets in memory; liveconn.go: one
package natlab
