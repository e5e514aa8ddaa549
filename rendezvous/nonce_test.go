package rendezvous

import (
	"testing"
	"time"
)

func TestNonceIsForOneSourceAndTwoMinutes(t *testing.T) {
	t.Parallel()
	n := nonces{key: [32]byte{1}}
	now, from := time.Unix(1_800_000_000, 0), ap("192.0.2.7:1234")
	nonce := n.make(now, from)
	if len(nonce) != 27 {
		t.Errorf("a NONCE of %d bytes", len(nonce))
	}
	for _, c := range []struct {
		what  string
		n     nonces
		from  string
		after time.Duration
		want  bool
	}{
		{"at once", n, "192.0.2.7:1234", 0, true},
		{"mapped into IPv6", n, "[::ffff:192.0.2.7]:1234", 0, true},
		{"a minute later", n, "192.0.2.7:1234", time.Minute, true},
		{"two minutes later", n, "192.0.2.7:1234", 2 * time.Minute, false},
		{"before it was made", n, "192.0.2.7:1234", -2 * time.Minute, false},
		{"from another port", n, "192.0.2.7:1235", 0, false},
		{"from another address", n, "192.0.2.8:1234", 0, false},
		{"at a restarted server", nonces{key: [32]byte{2}}, "192.0.2.7:1234", 0, false},
	} {
		if got := c.n.valid(now.Add(c.after), ap(c.from), nonce); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	for i := range nonce {
		changed := append([]byte(nil), nonce...)
		changed[i] ^= 1
		if n.valid(now, from, changed) || n.valid(now, from, nonce[:i]) {
			t.Errorf("byte %d does not count", i)
		}
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	var b bucket
	take := func(ms stamp, n float64) bool { return b.take(ms, n, 10, 20) }
	if !take(0, 20) || take(0, 1) || take(50, 1) || !take(100, 1) || take(100, 1) || !take(10_000, 20) || take(10_000, 1) {
		t.Error("ten a second, twenty at once, is not what it gives")
	}
	if !b.take(10_000, 1e9, -1, 0) {
		t.Error("a rate of -1 has a limit")
	}
	b = bucket{last: 1<<32 - 500} // the stamp is about to wrap around
	if b.take(1<<32-500, 20, 10, 20); !b.take(500, 10, 10, 20) || b.take(500, 1, 10, 20) {
		t.Error("a wrapped stamp does not refill")
	}
}
