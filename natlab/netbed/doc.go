// Package netbed builds a natlab.Topology of Linux network namespaces: hosts
// with the kernel's own UDP, TCP and ICMP, boxes with its own NAT, and a public
// core in user space that delays, loses and drops. It needs no program beside
// itself, and no root: an ordinary user gets a user namespace.
//
// A program that uses it calls [Enter] first thing in main, a test calls [Main]
// from TestMain: both start themselves again inside namespaces of their own,
// which vanish with the last process in them, however that one ends.
//
//	enter_linux.go     into a namespace of our own
//	ns_linux.go        namespaces, and doing things in them
//	kill_linux.go      what still runs in them at the end
//	build_linux.go     a topology becomes links and addresses
//	address_linux.go   which addresses
//	link_linux.go      interfaces, neighbours and routes (netlink)
//	nft_linux.go       what a box does
//	lab_linux.go       Lab, Host and Box: what the caller holds
//	core_linux.go      the router in the middle
//	schedule_linux.go  when each packet may go on
//	line_linux.go      one direction of a link: delay, loss and rate
//	port_linux.go      frames in and out (AF_PACKET)
//	ring_linux.go      frames in without a system call each
//	offload_linux.go   whole packets only
//	tap.go             watching packets
//	pcap_linux.go      captures
package netbed
