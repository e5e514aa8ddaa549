//go:build darwin || freebsd

package sock

import "golang.org/x/net/ipv6"

// ttlMessage sets the hop limit of one packet (RFC 3542 §6.3). Of IPv4 these
// systems promise nothing alike, and an opener that lives too long does harm.
func ttlMessage(is4 bool, ttl uint8) []byte {
	if is4 {
		return nil
	}
	return (&ipv6.ControlMessage{HopLimit: int(ttl)}).Marshal()
}
