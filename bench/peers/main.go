// Peers measures what a node pays for peers that are connected and say nothing:
// memory for each, and CPU.
//
//	go run ./bench/peers [--peers 1000] [--idle 60s] [--json]
//
// The node that is measured listens in this process. A second process has the server
// and the peers, which dial it over loopback, open one stream each and keep it. It
// ends with 1 if a peer does not get a direct route.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"bodkin"
	"bodkin/bench/throughput/end"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// result is what the run showed.
type result struct {
	Peers      int     `json:"peers"`
	Direct     int     `json:"direct"`      // of them by a hole
	ConnectS   float64 `json:"connect_s"`   // until all were there; the server limits the rate
	RSSPeer    int64   `json:"rss_peer"`    // bytes of resident memory a peer
	HeapPeer   int64   `json:"heap_peer"`   // bytes of live heap a peer
	Goroutines float64 `json:"goroutines"`  // a peer
	IdleCPU    float64 `json:"idle_cpu"`    // CPU seconds a second, with all peers idle
	ConnectCPU float64 `json:"connect_cpu"` // CPU seconds a peer, until it was there
}

func main() {
	peers := flag.Int("peers", 1000, "how many peers connect")
	idle := flag.Duration("idle", time.Minute, "for how long they say nothing")
	asJSON := flag.Bool("json", false, "print JSON")
	child := flag.Bool("child", false, "be the second process")
	flag.Parse()
	if *child {
		if err := others(*peers); err != nil {
			fail(err)
		}
		return
	}
	r, err := run(*peers, *idle)
	if err != nil {
		fail(err)
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		fmt.Printf("%d idle peers, %d direct, there after %.1f s\n", r.Peers, r.Direct, r.ConnectS)
		fmt.Printf("a peer: %d KiB resident, %d KiB of heap, %.1f goroutines, %.2f ms of CPU to connect\n",
			r.RSSPeer>>10, r.HeapPeer>>10, r.Goroutines, 1000*r.ConnectCPU)
		fmt.Printf("all of them idle: %.2f%% of a core\n", 100*r.IdleCPU)
	}
	if r.Direct < r.Peers {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peers:", err)
	os.Exit(1)
}

// usage is what this process has used.
type usage struct {
	rss, heap  int64
	goroutines int
	cpu        time.Duration
}

func used() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{heap: int64(m.HeapAlloc), goroutines: runtime.NumGoroutine(), cpu: end.CPUTime()}
	var pages int64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(b), new(int64), &pages)
	}
	u.rss = pages * int64(os.Getpagesize())
	return u
}

func run(peers int, idle time.Duration) (result, error) {
	r := result{Peers: peers}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "--child", "--peers", fmt.Sprint(peers))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return r, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return r, errors.New("the second process did not start")
	}
	key, err := peer.GenerateKey()
	if err != nil {
		return r, err
	}
	n, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: lines.Text()})
	if err != nil {
		return r, err
	}
	defer func() { _ = n.Close() }()
	l, err := n.Listen("idle")
	if err != nil {
		return r, err
	}
	go hold(l)
	if err := n.WaitRegistered(ctx); err != nil {
		return r, err
	}
	before, begin := used(), time.Now()
	_, _ = fmt.Fprintln(in, n.ID())
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "connected") {
		return r, fmt.Errorf("the peers did not connect: %s", lines.Text())
	}
	_, _ = fmt.Sscanf(lines.Text(), "connected %d", &r.Direct)
	r.ConnectS = time.Since(begin).Seconds()
	all := used()
	time.Sleep(idle)
	after := used()
	share := func(x int64) int64 { return x / int64(peers) }
	r.ConnectCPU = (all.cpu - before.cpu).Seconds() / float64(peers)
	r.IdleCPU = (after.cpu - all.cpu).Seconds() / idle.Seconds()
	r.RSSPeer, r.HeapPeer = share(after.rss-before.rss), share(after.heap-before.heap)
	r.Goroutines = float64(after.goroutines-before.goroutines) / float64(peers)
	return r, nil
}

// hold accepts, answers one byte, and keeps what it accepted.
func hold(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// others is the second process: the server and the peers.
func others(peers int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
	})
	if err != nil {
		return err
	}
	go func() { _ = s.Serve(ctx) }()
	url := s.URL("127.0.0.1").String()
	fmt.Println(url)
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	id, err := peer.ParseID(lines.Text())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	direct := make(chan bool, peers)
	begin := time.Now()
	for i := range peers {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * pace)))
		wg.Go(func() { direct <- connect(ctx, url, id) })
	}
	wg.Wait()
	close(direct)
	n := 0
	for ok := range direct {
		if ok {
			n++
		}
	}
	fmt.Println("connected", n)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// pace is between two dials: a server introduces 20 a second to one node.
const pace = time.Second / 15

// connect is one peer: it stays, and reports whether it got a hole.
func connect(ctx context.Context, url string, id peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	key, err := peer.GenerateKey()
	if err != nil {
		return false
	}
	n, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: url, Network: small{}})
	if err != nil {
		return false
	}
	if n.WaitRegistered(ctx) != nil {
		return false
	}
	c, err := n.Dial(ctx, id, "idle")
	if err != nil {
		return false
	}
	for ctx.Err() == nil {
		if _, err := c.Write([]byte{1}); err != nil {
			return false
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return false
		}
		if c.Route().Direct() {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// small is loopback with sockets that a node reads packet by packet, so that a
// thousand nodes fit into one process.
type small struct{}

func (small) Prefixes() ([]netip.Prefix, error) { return nil, nil }

func (small) ListenPacket(ctx context.Context, network string, _ netip.AddrPort) (net.PacketConn, error) {
	if network != "udp4" {
		return nil, syscall.EAFNOSUPPORT
	}
	var c net.ListenConfig
	p, err := c.ListenPacket(ctx, network, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return plain{p}, nil
}

// plain hides what a *net.UDPConn can do.
type plain struct{ net.PacketConn }
