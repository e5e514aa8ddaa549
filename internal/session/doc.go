// Package session is QUIC over a path: encrypted connections between peers,
// streams and datagrams for their services, and the moves from route to route.
//
//	manager.go  who is connected: dial, accept, find, close
//	tls.go      identity: the certificate's key must be the peer's
//	connid.go   connection IDs that tell who dialled
//	session.go  one connection: its streams, and who takes them
//	tcp.go      TLS on a connection over TCP that was handed over
//	stream.go   a stream as a net.Conn
//	header.go   what a stream begins with, and what datagrams do
//	datagram.go unreliable flows
//	inbox.go    datagrams that wait, and deadlines
//	migrate.go  following the best route
//	drain.go    ping, and nothing lost at the end
//
// QUIC sees a peer's overlay address with the route class as its port.
package session
