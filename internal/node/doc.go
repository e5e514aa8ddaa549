// Package node is the control state of one node, whole: the rendezvous agent and
// one path.Peer for everybody it talks to, as a single state machine without
// I/O, clock or goroutine. The root package drives it over real sockets; a lab
// may drive it in virtual time.
//
//	core.go    what comes in: sockets, packets, wishes
//	server.go  between the agent and the peers: registration, introductions
//	member.go  the peers: who is known under which overlay address
//	measure.go which NAT this node is behind
//	reserve.go a second socket behind a NAT that keeps early packets
//	stream.go  connections to the server, and when one is worth having
//	tcp.go     connections by which peers punch; tcp_measure.go how our NAT gives them ports
//	icmp.go    the sockets for ICMP, and the identifiers that the server sees
//	serverless.go a peer that is found without a server
//	pairing.go codes by which two who do not know each other yet meet
//	ignored.go what was not believed, and why
package node
