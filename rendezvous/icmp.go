package rendezvous

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"bodkin/internal/sock"
)

// openICMP opens a socket for ICMP in each address family that there is UDP of.
func (s *Server) openICMP(ctx context.Context) error {
	if !s.cfg.ICMP {
		return nil
	}
	var has [2]bool
	for _, u := range s.sockets {
		family := 0
		if !u.Is4() {
			family = 1
		}
		if has[family] {
			continue
		}
		has[family] = true
		c, err := sock.OpenICMP(ctx, s.cfg.Network, u)
		if err == nil && !c.Raw() {
			_ = c.Close()
			err = sock.ErrNotRaw()
		}
		if err != nil {
			return fmt.Errorf("answer by ICMP: %w", err)
		}
		s.icmp = append(s.icmp, c)
	}
	return nil
}

// readICMP steps the registry with what comes in echo requests: their source is an address
// and an identifier. Replies and errors are not for a server.
func (s *Server) readICMP(i int, c *sock.ICMP) error {
	var b burst
	return c.Read(func(w sock.Way, from netip.AddrPort, packet []byte) {
		if w != sock.Answer {
			return
		}
		s.mu.Lock()
		var next time.Time
		b.out, next = s.registry.Step(time.Now(), firstICMP+i, from, packet, b.out)
		s.plan(next)
		s.mu.Unlock()
		s.write(&b)
	})
}

// writeICMP sends an echo reply: at once, or if it carries relayed data, at the rate that
// ICMP is kept to.
func (s *Server) writeICMP(o Outgoing) {
	i := o.Local - firstICMP
	if i >= len(s.icmp) {
		return
	}
	leg := s.icmp[i].Leg(sock.Answer)
	if len(o.Data) > 0 && o.Data[0]&0xF0 == 0x40 {
		leg.Queue(o.To, o.Data, len(o.Data))
		return
	}
	s.sent(leg.Send(o.To, 0, o.Data))
}
