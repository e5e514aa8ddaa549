package cli

import (
	"fmt"
	"slices"
	"testing"
)

// The addresses in --public are those of the endpoints that are bound, if no NAT
// changes their ports.
func TestPublicAddressesOfAServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listen, public []string
		want           string
	}{
		{nil, []string{"rendezvous.example.org"}, "[]"},
		{nil, []string{"192.0.2.1", "rendezvous.example.org", "192.0.2.2:3478", "2001:db8::1"}, "[192.0.2.1 192.0.2.2 2001:db8::1]"},
		{nil, []string{"192.0.2.1:4000"}, "[]"},
		{[]string{"10.0.0.1:4000", "10.0.0.2:4000"}, []string{"192.0.2.1:4000", "192.0.2.2", "192.0.2.3:3478"}, "[192.0.2.1 192.0.2.2]"},
		{[]string{":4000"}, []string{"[2001:db8::1]:4000"}, "[2001:db8::1]"},
	} {
		f := serveFlags{listen: c.listen, public: c.public, relayRate: "1M", totalRate: "0"}
		cfg, err := f.config()
		if got := fmt.Sprint(cfg.Public); err != nil || got != c.want {
			t.Errorf("--listen %q --public %q: %s, %v, want %s", c.listen, c.public, got, err, c.want)
		}
	}
	for _, public := range []string{"", "a b", "192.0.2.1:0", "192.0.2.1:x"} {
		f := serveFlags{public: []string{public}, relayRate: "1M", totalRate: "0"}
		if _, err := f.config(); err == nil {
			t.Errorf("--public %q is taken", public)
		}
	}
}

// ":PORT" is both families.
func TestListenAddresses(t *testing.T) {
	t.Parallel()
	got, err := listenAddrs("--listen", []string{":1", "127.0.0.1:2", "[::1]:3"})
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	if want := []string{"0.0.0.0:1", "[::]:1", "127.0.0.1:2", "[::1]:3"}; err != nil || !slices.Equal(texts, want) {
		t.Errorf("%q, %v", texts, err)
	}
}
