package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"bodkin/peer"
	"bodkin/rendezvous"

	"golang.org/x/net/ipv4"
)

// serve is the server process: it prints its URL, and ends with its standard input.
func serve() error {
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Limits: noLimits, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
	})
	if err != nil {
		return err
	}
	fmt.Println(s.URL("127.0.0.1"))
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return s.Serve(ctx)
}

// server is a server process, seen from here.
type server struct {
	cmd   *exec.Cmd
	stdin interface{ Close() error }
	url   rendezvous.URL
}

func startServer() (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), self, "--server")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, stdin: stdin}
	line := make([]byte, 256)
	n, err := stdout.Read(line)
	if err == nil {
		s.url, err = rendezvous.ParseURL(strings.TrimSpace(string(line[:n])))
	}
	if err != nil {
		_, _ = s.stop()
		return nil, fmt.Errorf("the server did not start: %w", err)
	}
	return s, nil
}

// stop ends the process and says how much CPU time it took.
func (s *server) stop() (time.Duration, error) {
	_ = s.stdin.Close()
	err := s.cmd.Wait()
	return s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime(), err
}

func (s *server) endpoint() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.url.Port)
}

func measureLoopback(r *result, n int, relay time.Duration) error {
	if err := measureControl(r, n); err != nil {
		return fmt.Errorf("over loopback: %w", err)
	}
	if err := measureRelay(r, relay); err != nil {
		return fmt.Errorf("relay over loopback: %w", err)
	}
	return nil
}

// measureControl registers and introduces n nodes, all of one socket: each has an
// address of its own in 127.0.0.0/8. What they seal is sealed before.
func measureControl(r *result, n int) error {
	s, err := startServer()
	if err != nil {
		return err
	}
	defer func() { _, _ = s.stop() }()
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	nodes := &nodeSocket{PacketConn: ipv4.NewPacketConn(conn), server: net.UDPAddrFromAddrPort(s.endpoint())}
	if err := nodes.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("this system does not say which address a packet came to: %w", err)
	}
	f, err := newFleet(n, s.url.ID, s.endpoint())
	if err != nil {
		return err
	}
	f.hello(time.Now())
	challenges, err := nodes.exchange(f, false)
	if err != nil {
		return err
	}
	registers, err := nodes.exchange(f, false)
	if err != nil {
		return err
	}
	if err := f.check(rendezvous.AgentRegistered); err != nil {
		return err
	}
	r.Loopback.Registrations = float64(n) / (challenges + registers).Seconds()
	f.ask(time.Now())
	introductions, err := nodes.exchange(f, true)
	if err != nil {
		return err
	}
	r.Loopback.Introductions = float64(n) / introductions.Seconds()
	cpu, err := s.stop()
	r.Loopback.ControlCPUPerOne = float64(cpu.Microseconds()) / float64(n)
	return err
}

// nodeSocket is the one socket of all nodes.
type nodeSocket struct {
	*ipv4.PacketConn
	server *net.UDPAddr
}

func nodeAddress(i int) net.IP { return net.IPv4(127, byte(1+i>>16), byte(i>>8), byte(i)) }

func (c *nodeSocket) send(i int, b []byte) error {
	_, err := c.WriteTo(b, &ipv4.ControlMessage{Src: nodeAddress(i)}, c.server)
	return err
}

// underWay is how many nodes wait for an answer at a time: few enough that no
// packet is dropped.
const underWay = 64

// exchange sends what every node wants to send, and gives it the answer, until all
// have one. With introductions, a node that is told of another acknowledges that,
// and has to be told too.
func (c *nodeSocket) exchange(f *fleet, introductions bool) (time.Duration, error) {
	n := len(f.agents)
	packets := make([][]byte, n)
	copy(packets, f.out)
	answered, told := make([]bool, n), make([]bool, n)
	sent, done, each := 0, 0, 1 // each node waits for so many packets
	if introductions {
		each = 2
	}
	b := make([]byte, 2048)
	begin := time.Now()
	for done < each*n {
		for sent < n && each*sent-done < each*underWay {
			if err := c.send(sent, packets[sent]); err != nil {
				return 0, err
			}
			sent++
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		size, cm, _, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) { // something was lost after all
			if time.Since(begin) > time.Minute {
				return 0, fmt.Errorf("%d of %d answers", done, each*n)
			}
			for i := range sent {
				if f.step(i, time.Now(), rendezvous.AgentInput{Op: rendezvous.AgentTick}); f.out[i] != nil {
					_ = c.send(i, f.out[i])
				}
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		ip := cm.Dst.To4()
		i := int(ip[1]-1)<<16 | int(ip[2])<<8 | int(ip[3])
		f.did[i] = rendezvous.AgentAction{}
		f.receive(i, time.Now(), append([]byte(nil), b[:size]...))
		if f.out[i] != nil && introductions {
			if err := c.send(i, f.out[i]); err != nil {
				return 0, err
			}
		}
		mark := answered
		if f.did[i].Op == rendezvous.AgentAsked {
			mark = told
		}
		if !mark[i] {
			mark[i] = true
			done++
		}
	}
	return time.Since(begin), nil
}
