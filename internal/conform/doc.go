// Package conform measures boxes from outside, with what hosts on both sides of
// them send and receive, and says where they are not what their natlab.NAT says.
// The same suite runs on every bed: in virtual time, and in network namespaces
// with boxes of the model or of the kernel.
//
//   - bed.go, sim.go, netbed_linux.go: what a bed is to the suite
//   - suite.go: probes; settle.go: how it knows that nothing arrives
//   - measured.go: what is measured, in the RFCs' words
//   - udp.go, ports.go, tcp.go, icmp.go, time.go, rest.go: a topic each
//   - expect.go: what must be measured, from the fields of a NAT
package conform
