// Package rendezvous is the third party: a server that anyone can run, which
// keeps the endpoints of nodes for a while, introduces two of them to each other
// at the same moment, and relays between them where no hole opens. It is trusted
// with availability and with who talks to whom, never with content or identity.
//
//	config.go    how a server is, and which endpoints it has
//	server.go    the server over UDP: sockets and nothing else
//	registry.go  the server's state: a state machine without I/O or clock
//	register.go  who is there: Register and Refresh
//	about.go     what a node says of itself
//	index.go     how a registration is found
//	expire.go    how it ends
//	introduce.go both at once: Introduce and Introduced
//	plate.go     nameplates, where two meet who have a code in common
//	relay.go     ChannelData between introduced peers
//	binding.go   STUN for everybody: plain Binding, and RFC 5780
//	classic.go   the same for RFC 3489's clients
//	stream.go    the same over TCP and TLS
//	tls.go       what hides it there
//	icmp.go      the same in pings
//	origin.go    which sockets answer in place of which
//	limit.go     rates and prefixes
//	reach.go     a check from outside of a port that a router mapped
//	agent.go     a node's side of it all, a state machine too
//	agent_….go   its parts: registering, asking, connections, nameplates, packets
//
// docs/protocol.md has every message with its bytes.
package rendezvous
