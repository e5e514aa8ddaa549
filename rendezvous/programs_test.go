package rendezvous

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Programs that others wrote get right answers from the real server. Between them
// and it is no NAT here; stun_lab_test.go has some.

// serveFour runs a server with the same two ports of two loopback addresses.
func serveFour(t *testing.T) *Server {
	t.Helper()
	for {
		s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Listen: twoPorts(t)})
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			continue // a port that is free at 127.0.0.1 and not at 127.0.0.2
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			t.Skip("127.0.0.2 is not an address of this system")
		case err != nil:
			t.Fatal(err)
		}
		serve(t, s)
		return s
	}
}

// twoPorts are two free ports of 127.0.0.1, also at 127.0.0.2.
func twoPorts(t *testing.T) (out []netip.AddrPort) {
	t.Helper()
	s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Listen: aps("127.0.0.1:0", "127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, a := range []string{"127.0.0.1", "127.0.0.2"} {
		for _, e := range s.Addrs() {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), e.Port()))
		}
	}
	return out
}

func serve(tb testing.TB, s *Server) {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	tb.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}

// says runs a program of a Debian package and looks for what it must say. Its exit
// status is not looked at: some of these say with it what they found.
func says(t *testing.T, debian, program string, args []string, want ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed (Debian: apt-get install %s)", program, debian)
	}
	out, _ := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	for _, w := range want {
		if !regexp.MustCompile(w).Match(out) {
			t.Errorf("%s %s does not say %q:\n%s", program, strings.Join(args, " "), w, out)
		}
	}
}

func TestCoturnClients(t *testing.T) {
	t.Parallel()
	s := serveFour(t)
	p, q := port(s, 0), port(s, 1)
	for _, c := range []struct {
		program string
		args    []string
		want    []string
	}{
		{"turnutils_stunclient", nil, []string{`reflexive addr: 127\.0\.0\.1:\d+`}},
		{"turnutils_stunclient", []string{"-f"}, []string{
			`RFC 5780 response 1\n.*origin: : 127\.0\.0\.1:` + p + `\n`,
			`RFC 5780 response 2\n.*origin: : 127\.0\.0\.2:` + q + `\n`,
			`RFC 5780 response 3\n`, // to a RESPONSE-PORT
		}},
		{"turnutils_natdiscovery", []string{"-m", "-f"}, []string{
			`No ALG: Mapped == XOR-Mapped`, `Other addr: : 127\.0\.0\.2:` + q + `\n`,
			`NAT with Endpoint Independent Mapping!`, `NAT with Endpoint Independent Filtering!`,
		}},
		{"turnutils_natdiscovery", []string{"-m", "-f", "-P"}, []string{
			`NAT with Endpoint Independent Mapping!`, `NAT with Endpoint Independent Filtering!`,
		}},
		{"turnutils_natdiscovery", []string{"-H"}, []string{`successful hairpinning`}},
	} {
		t.Run(c.program+strings.Join(c.args, ""), func(t *testing.T) {
			t.Parallel()
			says(t, "coturn", c.program, append(c.args, "-p", p, "127.0.0.1"), c.want...)
		})
	}
}

// It speaks RFC 3489.
func TestClassicClient(t *testing.T) {
	t.Parallel()
	s := serveFour(t)
	p, q := port(s, 0), port(s, 1)
	says(t, "stun-client", "stun", []string{"127.0.0.1:" + p, "-v"},
		`MappedAddress = 127\.0\.0\.1:\d+\nSourceAddress = 127\.0\.0\.1:`+p+`\nChangedAddress = 127\.0\.0\.2:`+q,
		`SourceAddress = 127\.0\.0\.2:`+p, `SourceAddress = 127\.0\.0\.1:`+q, `Primary: Open`)
}

// port is that of the server's n-th socket.
func port(s *Server, n int) string { return strconv.Itoa(int(s.Addrs()[n].Port())) }
