// Package matrix drives punches over networks with NATs in them, in virtual time:
// the control state of two whole nodes and of a server, on a natlab.Sim. One run
// takes a millisecond or two, and is the same for the same seed.
//
//	punch.go  one run and its result
//	site.go   a node and the server on their hosts
//	why.go    why a run did not end with a hole
//
// and many of them:
//
//	grid.go        all pairs of presets
//	summary.go     what the runs of a pair come to
//	population.go  how often two people on the Internet would connect
//
// Package bed does the same runs with real nodes and kernels, package trace records
// the packets of a run, and package page shows all of it.
package matrix
