package netbed_test

import (
	"net"
	"testing"

	"golang.org/x/net/ipv4"
)

func setTTL(t *testing.T, c *net.UDPConn, ttl int) {
	t.Helper()
	if err := ipv4.NewConn(c).SetTTL(ttl); err != nil {
		t.Fatal(err)
	}
}
