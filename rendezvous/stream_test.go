package rendezvous

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// certified is a certificate for 127.0.0.1, and who trusts it.
func certified(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stun"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serveStreams runs a server with TCP and TLS on loopback.
func serveStreams(t *testing.T) (s *Server, tcp, tlsAt string, client *tls.Config) {
	t.Helper()
	pair, pool := certified(t)
	s, err := NewServer(t.Context(), ServerConfig{
		Key: serverKey, Listen: aps("127.0.0.1:0"), ListenTCP: aps("127.0.0.1:0"), ListenTLS: aps("127.0.0.1:0"),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s)
	overTCP, overTLS := s.StreamAddrs()
	return s, overTCP[0].String(), overTLS[0].String(), &tls.Config{RootCAs: pool}
}

func dialTCP(t *testing.T, to string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Somebody else's client finds its endpoint over both.
func TestPionClientOverTCPAndTLS(t *testing.T) {
	t.Parallel()
	_, overTCP, overTLS, config := serveStreams(t)
	secure, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp4", overTLS)
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"TCP": dialTCP(t, overTCP), "TLS": secure} {
		c, err := stun.NewClient(conn)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			err := c.Do(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint), func(e stun.Event) {
				if e.Error != nil {
					t.Errorf("%s: %v", name, e.Error)
					return
				}
				var x stun.XORMappedAddress
				if err := x.GetFrom(e.Message); err != nil || x.String() != conn.LocalAddr().String() || stun.Fingerprint.Check(e.Message) != nil {
					t.Errorf("%s: mapped at %v, %v", name, x, err)
				}
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		_ = c.Close()
	}
}

// Requests may come together and in pieces; an indication is taken and not answered.
func TestStreamOfRequests(t *testing.T) {
	t.Parallel()
	_, at, _, _ := serveStreams(t)
	c := dialTCP(t, at)
	plain := wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)
	indication := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication)).Raw
	// What asks for another way back makes no sense here.
	changed := wire.BindingRequest{ID: wire.TransactionID{2}, ChangePort: true}.Append(nil)
	elsewhere := wire.BindingRequest{ID: wire.TransactionID{3}, ResponsePort: 9}.Append(nil)
	padded := wire.BindingRequest{ID: wire.TransactionID{4}, Padding: 1000, OtherPorts: true, Fingerprint: true}.Append(nil)
	all := slices.Concat(plain, indication, changed, elsewhere, padded)
	for _, part := range [][]byte{all[:30], all[30:31], all[31:]} {
		if _, err := c.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	mapped := c.LocalAddr().(*net.TCPAddr).AddrPort()
	r := bufio.NewReaderSize(c, wire.MaxFrame)
	for _, want := range []wire.BindingAnswer{
		{ID: wire.TransactionID{1}, Mapped: mapped},
		{ID: wire.TransactionID{2}, Code: 420, Unknown: []stun.AttrType{stun.AttrChangeRequest}},
		{ID: wire.TransactionID{3}, Code: 420, Unknown: []stun.AttrType{stun.AttrResponsePort}},
		{ID: wire.TransactionID{4}, Mapped: mapped, Fingerprint: true},
	} {
		b, err := wire.ReadFrame(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsedAnswer(t, b); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// A stream with anything else in it ends.
func TestStreamsThatEnd(t *testing.T) {
	t.Parallel()
	_, at, overTLS, _ := serveStreams(t)
	for name, b := range map[string][]byte{
		"HTTP":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"an answer":         wire.BindingAnswer{Mapped: ap("192.0.2.1:1")}.Append(nil),
		"wrong FINGERPRINT": append(wire.BindingRequest{Fingerprint: true}.Append(nil)[:27], 0),
		"no magic cookie":   append([]byte{0, 1, 0, 0}, make([]byte, 16)...),
	} {
		for _, to := range []string{at, overTLS} {
			c := dialTCP(t, to)
			_, _ = c.Write(b)
			got, _ := io.ReadAll(c) // ends, be it with a reset
			if to == at && len(got) != 0 {
				t.Errorf("%s is answered with %x", name, got)
			}
		}
	}
}

// Connections of those who have not registered are bounded for each network: the
// oldest one ends for a new one.
func TestConnectionsAreLimitedByPrefix(t *testing.T) {
	t.Parallel()
	s, at, _, _ := serveStreams(t)
	ask := func(c net.Conn) error {
		if _, err := c.Write(wire.BindingRequest{}.Append(nil)); err != nil {
			return err
		}
		_, err := wire.ReadFrame(bufio.NewReaderSize(c, wire.MaxFrame))
		return err
	}
	var open []net.Conn
	for i := range strangersPerPrefix + 1 {
		c := dialTCP(t, at)
		if err := ask(c); err != nil {
			t.Fatalf("the %d-th: %v", i+1, err)
		}
		open = append(open, c)
	}
	if _, err := io.ReadAll(open[0]); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the first one: %v", err)
	}
	if err := ask(open[1]); err != nil {
		t.Errorf("the second one: %v", err)
	}
	if s.Stats().Limited == 0 {
		t.Error("it was not counted")
	}
}

// elsewhere is a connection that claims to come from an endpoint.
type elsewhere struct {
	net.Conn
	from netip.AddrPort
}

func (c elsewhere) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

// streamServer is a server with a state and no sockets.
func streamServer() *Server {
	s := &Server{closed: make(chan struct{})}
	s.keep(NewRegistry(serverKey, Limits{}, nil))
	return s
}

func TestIdleStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := streamServer()
		a, b := net.Pipe()
		begin := time.Now()
		go func() {
			x, _ := s.streams.add(elsewhere{a, ap("192.0.2.7:7")}, nil)
			s.serveStream(x)
			s.streams.remove(x)
		}()
		time.Sleep(firstPatience - time.Second)
		_, _ = b.Write(wire.BindingRequest{}.Append(nil))
		if _, err := wire.ReadFrame(bufio.NewReaderSize(b, wire.MaxFrame)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		_, _ = b.Write([]byte{0, 1, 0}) // the beginning of a message gives no more time
		if _, err := io.ReadAll(b); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != firstPatience-time.Second+strangerPatience {
			t.Errorf("ended after %v", d)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	s := streamServer()
	s.streams.limit = 2 * prefixShare
	add := func(from netip.AddrPort) (*stream, bool) {
		c, _ := net.Pipe()
		return s.streams.add(elsewhere{c, from}, nil)
	}
	var all []*stream
	for i := range maxStrangers {
		x, limited := add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i / strangersPerPrefix), byte(i)}), uint16(i)))
		if all = append(all, x); x == nil || limited {
			t.Fatalf("the %d-th: %v, limited %v", i+1, x, limited)
		}
	}
	last, limited := add(ap("[2001:db8::1]:1"))
	if last == nil || !limited || s.streams.strangers.Len() != maxStrangers || all[0].stranger != nil {
		t.Errorf("one more: %v, limited %v; the oldest did not end for it", last, limited)
	}
	all = append(all, last)
	// Of those that register a prefix has its share, and all have the limit.
	registered := 0
	for _, x := range all {
		if x.registered = s.streams.register(x); x.registered {
			registered++
		}
		if x.registered && x == all[0] {
			t.Error("one that had to go is taken for a registered node's")
		}
	}
	if registered != s.streams.limit || s.streams.prefixes[all[1].prefix].registered != 2 {
		t.Errorf("%d registered, %d of the first prefix", registered, s.streams.prefixes[all[1].prefix].registered)
	}
	for _, x := range all {
		s.streams.remove(x)
	}
	if len(s.streams.open)+len(s.streams.prefixes)+s.streams.strangers.Len()+s.streams.registered != 0 {
		t.Error("something is left")
	}
	s.streams.close()
	if x, _ := add(ap("192.0.2.1:1")); x != nil {
		t.Error("one is taken after the end")
	}
}

// A network that opens connection after connection waits for the next second.
func TestAcceptsAreLimitedInRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := streamServer()
		taken := 0
		for range 2 * acceptsPerPrefix {
			c, _ := net.Pipe()
			if x, _ := s.streams.add(elsewhere{c, ap("192.0.2.7:7")}, nil); x != nil {
				taken++
			}
		}
		if taken != acceptsPerPrefix {
			t.Errorf("%d connections", taken)
		}
	})
}

// A network may ask as often over TCP as over UDP.
func TestStreamsAreLimitedInRate(t *testing.T) {
	t.Parallel()
	r := NewRegistry(serverKey, Limits{}, nil)
	now := time.Unix(1e9, 0)
	answers := 0
	for range 100 {
		out, _ := r.Step(now, firstStream, ap("192.0.2.7:7"), wire.BindingRequest{}.Append(nil), nil)
		if len(out) == 1 && len(out[0].Data) > 0 {
			answers++
		}
	}
	if answers != 50 || r.Stats().Limited != 50 {
		t.Errorf("%d answers, %+v", answers, r.Stats())
	}
}

func TestStreamsThatCannotBe(t *testing.T) {
	t.Parallel()
	pair, _ := certified(t)
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	for name, cfg := range map[string]ServerConfig{
		"no certificate": {ListenTLS: aps("127.0.0.1:0")},
		"no TCP":         {ListenTCP: aps("127.0.0.1:0"), Network: struct{ sock.Network }{sock.System{}}},
		"not ours":       {ListenTLS: aps("192.0.2.1:1"), TLS: config},
	} {
		cfg.Key, cfg.Listen = serverKey, aps("127.0.0.1:0")
		if s, err := NewServer(t.Context(), cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s: a server", name)
		} else if name == "no TCP" && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzStream: nobody who has not registered is answered with more than an address, a
// NONCE or an error, and what is no message ends the connection.
func FuzzStream(f *testing.F) {
	for _, b := range [][]byte{
		{0},
		wire.AppendChannelData(nil, 0x4000, []byte("data")), wire.BindingRequest{}.Append(nil), wire.BindingRequest{ChangeIP: true, Padding: 3, Fingerprint: true}.Append(nil),
		wire.AppendRegister(nil, wire.TransactionID{1}, nil, nil), wire.BindingAnswer{Mapped: ap("192.0.2.1:1")}.Append(nil),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewRegistry(serverKey, Limits{}, nil)
		for _, from := range []string{"203.0.113.9:99", "[2001:db8::9]:99"} {
			out, _ := r.Step(time.Unix(1e9, 0), firstStream+7, ap(from), b, nil)
			if len(out) == 0 {
				continue
			}
			answer := out[0]
			if len(out) > 1 || answer.Local != firstStream+7 || answer.To != ap(from) || len(answer.Data) > len(b)+48 {
				t.Fatalf("%x: %x", b, out)
			}
			if len(answer.Data) > 0 && wire.IsBindingRequest(b) && parsedAnswer(t, answer.Data).ID != [12]byte(b[8:20]) {
				t.Fatalf("%x: %x", b, answer)
			}
		}
	})
}
