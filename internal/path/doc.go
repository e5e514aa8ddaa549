// Package path is a packet socket whose addresses are peers: what is written to
// a peer's overlay address leaves by the best route that there is at that
// moment, through a hole or through the relay.
//
//	peer.go    what is known of one peer: a state machine without I/O or clock
//	introduce.go when to be introduced, and what begins then
//	account.go what came of the attempts to open a hole, for people to read
//	choose.go  which of two routes is better (a pure function)
//	heal.go    routes as they come and go
//	watch.go   whether routes still do what they should, and what the relay is worth
//	data.go    whether data arrives, as the peer counts it
//	outage.go  what QUIC is to forget, and when
//	socket.go  the data plane: where packets come in and go out
//	conn.go    the packet connections that QUIC reads and writes
//	runs.go    packets that wait to be read
//	origin.go  which path a packet is of, whichever way it came
//	table.go   what the control loop publishes for the data plane to read
//
// Control and data never meet: one loop steps the peers and publishes routes
// through atomic pointers, and packets pass beside it.
package path
