// Package punch is where a hole is punched.
//
// Two peers that were introduced at the same moment each run an [Engine]. It
// sends probes from our sockets to the endpoints at which the other may be
// reached ([Plan] says how), answers the other's probes, and reports a route
// once our own nonce came back on it: the exchange of nonces, authenticated in
// both directions, that proves a hole.
//
//	plan.go      what to try, in which order (a pure function)
//	target.go    at which endpoints
//	predict.go   the next ports of a NAT that counts
//	birthday.go  random ports of a NAT that draws
//	volley.go    single probes at many ports, or from many sockets
//	pace.go      how many packets leave in a second
//	memory.go    what earlier attempts taught
//	engine.go    the state machine: no I/O, no clock, no goroutine
//	udp.go       UDP hole punching: probes, answers, triggered checks, pacing
//	tcp.go       TCP hole punching: both sides connect at the same moment
//	icmp.go      ICMP hole punching: in pings and in errors
//	route.go     a confirmed route: keepalive, liveness, loss
//	candidate.go endpoints, and how a side describes itself
//
// The driver hands [Engine.Step] what happened and the time, does the actions
// that come back, and calls again at the time that Step asks for.
package punch
