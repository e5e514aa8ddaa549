// Package matrix drives punches over networks with NATs in them, in virtual time:
// the control state of two whole nodes and of a server, on a natlab.Sim. One run
// takes a millisecond or two, and is the same for the same seed.
//
//	punch.go  one run and its result
//	site.go   a node and the server on their hosts
//	why.go    why a run did not end with a hole
package matrix
