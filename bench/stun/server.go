package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// Cores of the server and of the load, as taskset(1) names them.
const (
	serverCore = "0"
	loadCore   = "1"
)

// serve is our server's process; it ends with its standard input.
func serve() error {
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Limits: rendezvous.Limits{Bindings: -1}, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
	})
	if err != nil {
		return err
	}
	fmt.Println(s.Addrs()[0])
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return s.Serve(ctx)
}

// server is a server's process, seen from here.
type server struct {
	cmd *exec.Cmd
	at  netip.AddrPort
}

// pinned is a command on one core.
func pinned(core, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "taskset", append([]string{"-c", core, program}, args...)...)
}

func startBodkin() (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := pinned(serverCore, self, "--server")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd}
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err == nil {
		s.at, err = netip.ParseAddrPort(strings.TrimSpace(string(line[:n])))
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("our server did not start: %w", err)
	}
	return s, nil
}

// startCoturn starts turnserver for STUN alone: without threads beside the one
// that listens, which is the fastest it can be on one core.
func startCoturn() (*server, error) {
	program, err := exec.LookPath("turnserver")
	if err != nil {
		return nil, nil
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{at: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	s.cmd = pinned(serverCore, program, "-n", "--stun-only", "--listening-ip=127.0.0.1", "--listening-port="+strconv.Itoa(int(port)),
		"--relay-threads=0", "--no-tls", "--no-dtls", "--no-tcp", "--no-cli", "--log-file=/dev/null", "--pidfile=/dev/null", "--userdb=/dev/null")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.answers(); err != nil {
		s.stop()
		return nil, fmt.Errorf("turnserver does not answer at %v: %w", s.at, err)
	}
	return s, nil
}

// freePort is a port that was free a moment ago.
func freePort() (uint16, error) {
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	a, _ := c.LocalAddr().(*net.UDPAddr)
	return a.AddrPort().Port(), nil
}

// answers waits until the server does.
func (s *server) answers() error {
	c, err := new(net.Dialer).DialContext(context.Background(), "udp4", s.at.String())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	err = errors.New("no attempt")
	for begin := time.Now(); err != nil && time.Since(begin) < 10*time.Second; {
		_, _ = c.Write(wire.BindingRequest{}.Append(nil))
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err = c.Read(make([]byte, 1500)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			time.Sleep(50 * time.Millisecond) // refused: it is not there yet
		}
	}
	return err
}

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// cpu is the CPU time that the process has taken: user and system (proc(5)).
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:])) // from the third on
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ
}
