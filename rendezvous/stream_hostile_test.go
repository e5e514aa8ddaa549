package rendezvous

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// client is a node's side of a connection: an Agent that has no other way.
type client struct {
	t     *testing.T
	agent *Agent
	conn  net.Conn
	r     *bufio.Reader
	done  []AgentAction
}

const clientLocal = 77

// register registers a node over a connection.
func register(t *testing.T, conn net.Conn, key peer.Key) *client {
	t.Helper()
	c, err := tryRegister(t, conn, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryRegister(t *testing.T, conn net.Conn, key peer.Key) (*client, error) {
	t.Helper()
	agent, err := NewAgent(AgentConfig{Key: key, Server: serverKey.ID(), Instance: 1, NewStream: func() uint32 { return clientLocal }})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, agent: agent, conn: conn, r: bufio.NewReaderSize(conn, wire.MaxFrame)}
	c.step(AgentInput{Op: AgentUpdate, Description: []byte("d"), Accepting: true})
	c.step(AgentInput{Op: AgentServers, Streams: []StreamEndpoint{{Addr: server4}}})
	c.step(AgentInput{Op: AgentConnected, Local: clientLocal, From: server4})
	return c, c.read(func() bool { return agent.primary != nil && agent.settled })
}

func (c *client) step(in AgentInput) {
	out, _ := c.agent.Step(time.Now(), in, nil)
	for _, a := range out {
		if a.Op == AgentSend {
			_, _ = c.conn.Write(wire.AppendFrame(nil, a.Data)) // reading tells
		}
		c.done = append(c.done, a)
	}
}

// until reads, until ok.
func (c *client) until(ok func() bool) {
	c.t.Helper()
	if err := c.read(ok); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(ok func() bool) error {
	for !ok() {
		b, err := wire.ReadFrame(c.r)
		if err != nil {
			return err
		}
		c.step(AgentInput{Op: AgentPacket, Local: clientLocal, From: server4, Data: bytes.Clone(b)})
	}
	return nil
}

// data reads until relayed data comes, and says what.
func (c *client) data() (wire.Channel, string) {
	c.t.Helper()
	for {
		b, err := wire.ReadFrame(c.r)
		if err != nil {
			c.t.Fatal(err)
		}
		if channel, data, ok := wire.ParseChannelData(b); ok {
			return channel, string(data)
		}
		c.step(AgentInput{Op: AgentPacket, Local: clientLocal, From: server4, Data: bytes.Clone(b)})
	}
}

func (c *client) last(op AgentOp) (AgentAction, bool) {
	for _, a := range slices.Backward(c.done) {
		if a.Op == op {
			return a, true
		}
	}
	return AgentAction{}, false
}

// Data of every length goes from a connection to a UDP socket and back: it is padded on
// the one and not on the other.
func TestRelayBetweenTLSAndUDP(t *testing.T) {
	t.Parallel()
	s, _, overTLS, config := serveStreams(t)
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp4", overTLS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	a, b := register(t, conn, testKey(1)), register(t, dialTCP(t, overTCPOf(s)), testKey(2))
	a.step(AgentInput{Op: AgentAsk, Token: 1, Target: testKey(2).ID(), Offer: []byte("o")})
	a.until(func() bool { _, ok := a.last(AgentIntroduced); return ok })
	b.until(func() bool { _, ok := b.last(AgentAsked); return ok })
	to, _ := a.last(AgentIntroduced)
	from, _ := b.last(AgentAsked)
	if got := to.Party.ObservedTCP; len(got) != 1 || got[0] != b.conn.LocalAddr().(*net.TCPAddr).AddrPort() || len(to.Party.Observed) != 0 {
		t.Errorf("a is told that b is at %v and %v", to.Party.Observed, got)
	}
	// b moves to UDP, with all that it has.
	udp, err := sock.Open(t.Context(), sock.System{}, "udp4", ap("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	packets := make(chan []byte, 100)
	go func() { _ = udp.Read(func(_ netip.AddrPort, p []byte) { packets <- bytes.Clone(p) }) }()
	content := b.agent.registration().Append(nil)
	at := s.Addrs()[0]
	var nonce []byte
	for moved := false; !moved; {
		id := b.agent.transaction()
		if err := udp.Send(at, 0, b.agent.seal(refreshRequest, id, nonce, content)); err != nil {
			t.Fatal(err)
		}
		m, err := wire.Decode(<-packets)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := m.Get(nonceAttr); err == nil {
			nonce = bytes.Clone(n)
		}
		moved = m.Type == refreshed
	}
	for n := range 9 {
		text := "abcdefghi"[:n]
		if _, err := a.conn.Write(wire.AppendFrame(nil, wire.AppendChannelData(nil, to.Channel, []byte(text)))); err != nil {
			t.Fatal(err)
		}
		got := <-packets
		if channel, data, ok := wire.ParseChannelData(got); !ok || channel != from.Channel || string(data) != text || len(got) != wire.ChannelOverhead+n {
			t.Errorf("b got %x", got)
		}
		if err := udp.Send(at, 0, wire.AppendChannelData(nil, from.Channel, []byte(text))); err != nil {
			t.Fatal(err)
		}
		if channel, data := a.data(); channel != to.Channel || data != text {
			t.Errorf("a got %q on %x", data, channel)
		}
	}
	if st := s.Stats(); st.Streams != 2 || st.Registrations != 2 {
		t.Errorf("%+v", st)
	}
}

func overTCPOf(s *Server) string {
	tcp, _ := s.StreamAddrs()
	return tcp[0].String()
}

// Strangers with garbage, half a message, half a handshake, nothing or connection after
// connection neither disturb a registered node nor keep another one out.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	s, overTCP, overTLS, config := serveStreams(t)
	a := register(t, dialTCP(t, overTCP), testKey(1))
	ctx, stop := context.WithCancel(t.Context())
	flooded := make(chan struct{})
	hello := clientHello(t)
	go func() {
		defer close(flooded)
		var held []net.Conn
		defer func() {
			for _, c := range held {
				_ = c.Close()
			}
		}()
		for i := 0; ctx.Err() == nil && i < 2000; i++ {
			to := []string{overTCP, overTLS}[i%2]
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", to)
			if err != nil {
				continue
			}
			held = append(held, c)
			_, _ = c.Write([][]byte{nil, {0, 1, 0}, hello[:len(hello)/2], []byte("GET / HTTP/1.1\r\n\r\n"), hello, bytes.Repeat([]byte{0x16}, 4000)}[i%6])
			if len(held) > 200 {
				_ = held[0].Close()
				held = held[1:]
			}
		}
	}()
	for i := range byte(5) {
		// The node's connection goes on, through refreshes.
		a.step(AgentInput{Op: AgentUpdate, Description: []byte{i}, Accepting: true})
		a.until(func() bool { return a.agent.settled })
	}
	// Another one gets in: others' connections end for it, and once in it stays. All come
	// from one network here, so that it waits for the next second's connections.
	for {
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp4", overTLS)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := tryRegister(t, conn, testKey(2)); err == nil {
			break
		}
	}
	stop()
	<-flooded
	s.streams.mu.RLock()
	strangers, open := s.streams.strangers.Len(), len(s.streams.open)
	s.streams.mu.RUnlock()
	if strangers > strangersPerPrefix || s.Stats().Streams != 2 {
		t.Errorf("%d strangers of %d connections, %+v", strangers, open, s.Stats())
	}
}

// clientHello is the beginning of a TLS handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() { _ = tls.Client(near, &tls.Config{ServerName: "server.example"}).HandshakeContext(t.Context()) }()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = near.Close(), far.Close()
	return b[:n]
}

// A node that takes none of what is relayed to it costs what is allowed, and the others
// nothing.
func TestStalledReceiver(t *testing.T) {
	t.Parallel()
	s, overTCP, _, _ := serveStreams(t)
	a, b := register(t, dialTCP(t, overTCP), testKey(1)), register(t, dialTCP(t, overTCP), testKey(2))
	a.step(AgentInput{Op: AgentAsk, Token: 1, Target: testKey(2).ID(), Offer: []byte("o")})
	a.until(func() bool { _, ok := a.last(AgentIntroduced); return ok })
	b.until(func() bool { _, ok := b.last(AgentAsked); return ok })
	to, _ := a.last(AgentIntroduced)
	frame := wire.AppendFrame(nil, wire.AppendChannelData(nil, to.Channel, make([]byte, 1200)))
	x := s.streamAt(b.conn.LocalAddr().(*net.TCPAddr).AddrPort())
	for x.Dropped.Load() == 0 {
		if _, err := a.conn.Write(bytes.Repeat(frame, 50)); err != nil {
			t.Fatal(err)
		}
		// What a says of itself is answered all the time.
		a.step(AgentInput{Op: AgentUpdate, Description: frame[:8+len(a.done)%50], Accepting: true})
		a.until(func() bool { return a.agent.settled })
	}
	// Everything that was not dropped comes, whole.
	for range s.Stats().RelayedPackets - x.Dropped.Load() {
		if _, data := b.data(); len(data) != 1200 {
			t.Fatalf("%d bytes", len(data))
		}
	}
}

func (s *Server) streamAt(remote netip.AddrPort) *stream {
	s.streams.mu.RLock()
	defer s.streams.mu.RUnlock()
	for _, x := range s.streams.open {
		if x.Remote() == remote {
			return x
		}
	}
	return nil
}

// A certificate that is neither the server's own nor good for its name is refused.
func TestWhoseCertificate(t *testing.T) {
	t.Parallel()
	own, err := Certificate(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	another, err := Certificate(testKey(9))
	if err != nil {
		t.Fatal(err)
	}
	pair, _ := certified(t)
	for name, c := range map[string]struct {
		show tls.Certificate
		err  error
	}{
		"the server's own": {own, nil}, "another server's": {another, ErrCertificate}, "of no authority": {pair, ErrCertificate},
	} {
		near, far := net.Pipe()
		go func() {
			_ = tls.Server(far, &tls.Config{Certificates: []tls.Certificate{c.show}}).HandshakeContext(t.Context())
			_, _ = io.Copy(io.Discard, far)
		}()
		err := tls.Client(near, ClientTLS(URL{Host: "127.0.0.1", ID: serverKey.ID()})).HandshakeContext(t.Context())
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		_ = near.Close()
	}
	if err := verify(nil, URL{}); !errors.Is(err, ErrCertificate) {
		t.Errorf("no certificate at all: %v", err)
	}
}

var (
	refreshRequest = stun.NewType(wire.Refresh, stun.ClassRequest)
	refreshed      = stun.NewType(wire.Refresh, stun.ClassSuccessResponse)
	nonceAttr      = stun.AttrNonce
)
