// Package icmp is the bytes of ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, the two errors
// that carry packets of ours, and the packets that errors quote. It knows nothing of
// sockets.
//
//	message.go  requests, replies and errors
//	quote.go    the packet that an error is about
//	filter.go   which messages a raw socket wants, for the kernel to sort out the rest
package icmp
