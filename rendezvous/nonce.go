package rendezvous

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"
)

// nonceBucket is how long a NONCE is handed out; it is good for one bucket more.
const nonceBucket = 60 * time.Second

// nonces prove a source address without keeping state (RFC 8489 §9.2): a NONCE
// is the time and a MAC over time and address, under a key that never leaves the
// server. It comes first, so that a spoofed source costs one HMAC.
type nonces struct{ key [32]byte }

const nonceMAC = 16

// make is the NONCE for a source at a time: 27 characters (RFC 8489 §14.10 wants
// text).
func (n *nonces) make(now time.Time, from netip.AddrPort) []byte {
	return n.bucket(bucketOf(now), from)
}

// valid reports whether the NONCE was made for that source not long ago.
func (n *nonces) valid(now time.Time, from netip.AddrPort, nonce []byte) bool {
	b := bucketOf(now)
	return hmac.Equal(nonce, n.bucket(b, from)) || hmac.Equal(nonce, n.bucket(b-1, from))
}

func bucketOf(now time.Time) uint32 { return uint32(now.Unix() / int64(nonceBucket/time.Second)) }

func (n *nonces) bucket(bucket uint32, from netip.AddrPort) []byte {
	raw := binary.BigEndian.AppendUint32(make([]byte, 0, 64), bucket)
	addr := from.Addr().Unmap().As16()
	h := hmac.New(sha256.New, n.key[:])
	h.Write(raw)
	h.Write(addr[:])
	_ = binary.Write(h, binary.BigEndian, from.Port())
	raw = h.Sum(raw)[:4+nonceMAC]
	return base64.RawStdEncoding.AppendEncode(nil, raw)
}
