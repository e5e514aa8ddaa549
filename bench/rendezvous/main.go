// Rendezvous measures what a rendezvous server costs: memory for each registered
// node, and how many registrations, introductions and relayed packets it takes in a
// second.
//
//	go run ./bench/rendezvous [--nodes 10000] [--seconds 3] [--json]
//
// It does so twice. First the server's state alone, as a function: packets in,
// packets out, on one core, without sockets, the nodes' own work not counted. Then a
// whole server in a process of its own on one core (GOMAXPROCS=1), over loopback,
// with the nodes in this process; there its CPU time is reported too, since the two
// share the machine.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"bodkin/rendezvous"
)

// noLimits lets one machine do what ten thousand would.
var noLimits = rendezvous.Limits{
	Registrations: 1 << 30, Lifetime: time.Hour, Introductions: -1, Introduced: -1, RelayPerPair: -1, RelayPerNode: -1,
}

// packetSize is that of the relayed packets: QUIC's.
const packetSize = 1200

// result is what was measured.
type result struct {
	Nodes int `json:"nodes"`

	State struct {
		HeapPerNode   float64 `json:"heap_bytes_per_registration"`
		Registrations float64 `json:"registrations_per_s"`
		Introductions float64 `json:"introductions_per_s"`
		Packets       float64 `json:"relayed_packets_per_s"` // their bytes are not touched
	} `json:"state"`

	Loopback struct {
		Registrations    float64 `json:"registrations_per_s"`
		Introductions    float64 `json:"introductions_per_s"`
		Packets          float64 `json:"relayed_packets_per_s"`
		Mbit             float64 `json:"relayed_mbit_per_s"`
		Lost             float64 `json:"relay_lost_share"`
		PacketsPerCPU    float64 `json:"relayed_packets_per_cpu_s"`
		MbitPerCPU       float64 `json:"relayed_mbit_per_cpu_s"`
		ControlCPUPerOne float64 `json:"cpu_us_per_node"` // one registration and one introduction
	} `json:"loopback"`
}

func main() {
	nodes := flag.Int("nodes", 10_000, "nodes to register")
	seconds := flag.Float64("seconds", 3, "how long to relay")
	asJSON := flag.Bool("json", false, "print JSON")
	server := flag.Bool("server", false, "be the server (the program starts itself so)")
	flag.Parse()
	if *server {
		if err := serve(); err != nil {
			fail(err)
		}
		return
	}
	if *nodes < 2 || *nodes > 1<<20 {
		fail(fmt.Errorf("--nodes %d: it is between 2 and %d", *nodes, 1<<20))
	}
	r := result{Nodes: *nodes}
	if err := measureState(&r, *nodes, time.Duration(*seconds*float64(time.Second))); err != nil {
		fail(err)
	}
	if err := measureLoopback(&r, *nodes, time.Duration(*seconds*float64(time.Second))); err != nil {
		fail(err)
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(r)
		return
	}
	s, l := r.State, r.Loopback
	fmt.Printf("%d nodes, each with its own key, endpoint and a description of %d bytes\n\n", r.Nodes, len(description))
	fmt.Printf("the server's state alone, one core\n")
	fmt.Printf("  heap for a registration    %8.0f bytes, maps included\n", s.HeapPerNode)
	fmt.Printf("  registrations              %8.0f a second, from hello to answer\n", s.Registrations)
	fmt.Printf("  introductions              %8.0f a second, acknowledged\n", s.Introductions)
	fmt.Printf("  relayed packets            %8.0f a second\n\n", s.Packets)
	fmt.Printf("a server process over loopback, GOMAXPROCS=1\n")
	fmt.Printf("  registrations              %8.0f a second\n", l.Registrations)
	fmt.Printf("  introductions              %8.0f a second\n", l.Introductions)
	fmt.Printf("  CPU for one of each        %8.0f µs\n", l.ControlCPUPerOne)
	fmt.Printf("  relayed packets            %8.0f a second of %d bytes, %.0f Mbit/s, %.2f%% lost\n", l.Packets, packetSize, l.Mbit, 100*l.Lost)
	fmt.Printf("  relayed for a second's CPU %8.0f packets, %.0f Mbit\n", l.PacketsPerCPU, l.MbitPerCPU)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "rendezvous:", err)
	os.Exit(1)
}
