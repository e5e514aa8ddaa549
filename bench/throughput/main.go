// Throughput measures what a hole carries, next to what other ways through the same
// two NATs do, in one run:
//
//	go run ./bench/throughput [--rounds 5] [--seconds 2] [--only bodkin,quic-go] [--libp2p PROGRAM] [--json]
//
//	main.go    the lab, and the rounds
//	pair.go    the two ends of one contender, each a process of its own
//	report.go  medians, spreads and ratios
//	bodkin.go  two nodes, and a hole between them
//	quic.go    quic-go on a UDP socket of its own
//	tcp.go     the kernel's TCP, without and with TLS 1.3
//
// Two Linux NATs, their network and the link between them are the kernel's alone: no
// delay is added, and nothing in user space is in the way. All connections are opened
// first; then each sends in turn, for as many rounds as asked for, so that a machine
// which is busy with something else disturbs all alike. Ratios are to quic-go's stream
// in the same round. CPU time is that of both ends, the kernel's part included.
//
// libp2p is measured if it was built:
//
//	go build -C bench/libp2p -o /tmp/bench-libp2p . && go run ./bench/throughput --libp2p /tmp/bench-libp2p
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"bodkin/bench/throughput/end"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

const (
	kindBodkin         = "bodkin"
	kindQUIC           = "quic-go"
	kindTCP            = "tcp"
	kindTLS            = "tls"
	kindBodkinTCP      = "bodkin-tcp"
	kindLibp2p         = "libp2p-quic"
	kindBodkinDatagram = "bodkin-datagrams"
	kindQUICDatagram   = "quic-go-datagrams"
)

// kinds are the contenders, in the order of a round.
var kinds = []string{kindBodkin, kindQUIC, kindLibp2p, kindTCP, kindTLS, kindBodkinTCP, kindBodkinDatagram, kindQUICDatagram}

// openers are those that are in this program.
var openers = map[string]end.Open{
	kindBodkin: openBodkin, kindBodkinDatagram: openBodkin, kindQUIC: openQUIC, kindQUICDatagram: openQUIC,
	kindTCP: openTCP, kindTLS: openTCP, kindBodkinTCP: openBodkin,
}

type options struct {
	rounds  int
	seconds float64
	only    string
	libp2p  string
	json    bool
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each contender sends")
	flag.Float64Var(&o.seconds, "seconds", 2, "for how long each time")
	flag.StringVar(&o.only, "only", "", "contenders, separated by commas; all if empty")
	flag.StringVar(&o.libp2p, "libp2p", "", "the program of bench/libp2p; it is left out if empty")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	be := flag.String("end", "", "be an end of a contender (the program starts itself so)")
	flag.Parse()
	if *be != "" {
		if err := end.Run(openers[*be]); err != nil {
			fail(err)
		}
		return
	}
	if err := netbed.Enter(); err != nil {
		fail(err)
	}
	all, err := run(o)
	if err != nil {
		fail(err)
	}
	if o.json {
		_ = json.NewEncoder(os.Stdout).Encode(all)
		return
	}
	print(all)
}

func fail(err error) {
	_, _ = fmt.Fprintln(os.Stderr, "throughput:", err)
	os.Exit(2)
}

// topology has the NATs of two homes on the network of a third box: what is inside of
// a box is linked by the kernel alone, where the lab's core is a program.
func topology() natlab.Topology {
	return natlab.Topology{
		Boxes: []natlab.Box{
			{Name: "net", LAN: netip.MustParsePrefix("100.64.0.0/16")},
			{Name: "home-a", Behind: "net", LAN: netip.MustParsePrefix("192.168.1.0/24")},
			{Name: "home-b", Behind: "net", LAN: netip.MustParsePrefix("192.168.2.0/24")},
		},
		Hosts: []natlab.Host{
			{Name: "server", Behind: "net"}, {Name: "a", Behind: "home-a"}, {Name: "b", Behind: "home-b"},
		},
	}
}

func run(o options) ([]result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lab, err := netbed.Start(ctx, topology())
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	url, err := serve(ctx, lab)
	if err != nil {
		return nil, err
	}
	pairs, err := open(ctx, lab, url, o)
	if err != nil {
		return nil, err
	}
	d := time.Duration(o.seconds * float64(time.Second))
	for range o.rounds {
		for _, p := range pairs {
			if err := p.round(ctx, d); err != nil {
				return nil, fmt.Errorf("%s: %w", p.kind, err)
			}
		}
	}
	return results(pairs), nil
}

// serve runs the rendezvous server.
func serve(ctx context.Context, lab *netbed.Lab) (url string, err error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return "", err
	}
	h := lab.Host("server")
	at := []netip.AddrPort{netip.AddrPortFrom(h.Addr(), rendezvous.DefaultPort)}
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{Key: key, Network: h, Listen: at, ListenTCP: at})
	if err != nil {
		return "", err
	}
	go func() { _ = s.Serve(ctx) }()
	return s.URL(h.Addr().String()).String(), nil
}

// firstPort is that of the first contender; each has ten.
const firstPort = 20_000

// open opens a connection of each contender.
func open(ctx context.Context, lab *netbed.Lab, url string, o options) (pairs []*pair, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	only := kinds
	if o.only != "" {
		only = strings.Split(o.only, ",")
	}
	for i, kind := range kinds {
		program := []string{self, "--end", kind}
		if openers[kind] == nil {
			program = []string{o.libp2p}
		}
		if !slices.Contains(only, kind) || program[0] == "" {
			continue
		}
		p, err := openPair(ctx, lab, kind, program, url, uint16(firstPort+10*i))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		pairs = append(pairs, p)
	}
	if len(pairs) == 0 {
		return nil, errors.New("nothing to measure; --only takes " + strings.Join(kinds, ", "))
	}
	return pairs, nil
}
