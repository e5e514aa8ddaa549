// Package pcp has the bytes of PCP (RFC 6887) and of NAT-PMP (RFC 6886), which
// share port 5351 of a router: codecs of both sides' messages, and nothing else.
//
//	message.go   PCP's header, MAP, PEER and ANNOUNCE
//	option.go    PCP's options
//	result.go    result codes of both
//	natpmp.go    NAT-PMP
package pcp
