// Package netbed builds a natlab.Topology of Linux network namespaces: hosts with
// the kernel's own UDP, TCP and ICMP, and a public core in user space that delays,
// loses and drops. Boxes are the kernel's own NAT ([Kernel]), or package natlab's
// model of every NAT ([Model]). It needs no program beside itself, and no root: an
// ordinary user gets a user namespace.
//
// A program that uses it calls [Enter] first thing in main, a test calls [Main]
// from TestMain: both start themselves again inside namespaces of their own,
// which vanish with the last process in them, however that one ends.
//
//	bed.go             the two ways to build a topology
//	enter_linux.go     into a namespace of our own
//	ns_linux.go        namespaces, and doing things in them
//	kill_linux.go      what still runs in them at the end
//	build_linux.go     a topology becomes namespaces, links and addresses
//	link_linux.go      interfaces, neighbours and routes (netlink)
//	nft_linux.go       what a box does, on the kernel bed
//	lab_linux.go       Lab, Host and Box: what the caller holds
//	core_linux.go      the fabric in real time
//	schedule_linux.go  the thread that steps it
//	port_linux.go      frames in and out (AF_PACKET)
//	ring_linux.go      frames in without a system call each
//	offload_linux.go   whole packets only
//	tap.go             watching packets
package netbed
