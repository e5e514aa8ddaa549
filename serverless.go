package bodkin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/sock"
	"bodkin/peer"
)

// Serverless is how nodes find each other without a server: see docs/serverless.md.
type Serverless struct {
	// Peers are the public endpoints of those to dial: the address of the NAT that a peer
	// is behind, and the UDP port of the peer's node, or 0 for [ServerlessPort].
	Peers map[peer.ID]netip.AddrPort
}

// ServerlessPort is the UDP port of a node without a server, if Config.Port names no other.
const ServerlessPort = 42663

const (
	// beaconEvery is less than the 30 seconds that Linux keeps the state of a ping.
	beaconEvery = 20 * time.Second
	// serverlessTime is how long a peer is dialled that says nothing.
	serverlessTime = 20 * time.Second
	// Hellos cost a key agreement each, and may come from anybody who knows our ID.
	maxHellos  = 20
	helloEvery = 100 * time.Millisecond
)

// beaconID is the identifier of a listener's pings, which those know who know its ID.
func beaconID(id peer.ID) uint16 {
	sum := sha256.Sum256(append([]byte("bodkin 1 beacon\x00"), id[:]...))
	return max(1, binary.BigEndian.Uint16(sum[:]))
}

// checkServerless completes a Config without a server.
func (c *Config) checkServerless() error {
	if c.Server != "" {
		return errors.New("bodkin: Config has a Server, and is Serverless; leave one out")
	}
	if c.Port == 0 && len(c.Serverless.Peers) == 0 {
		c.Port = ServerlessPort
	}
	at := make(map[peer.ID]netip.AddrPort, len(c.Serverless.Peers))
	for id, e := range c.Serverless.Peers {
		if !e.Addr().Unmap().Is4() {
			return fmt.Errorf("bodkin: %v is no IPv4 address; a peer is found without a server by IPv4 alone", e.Addr())
		}
		if at[id] = netip.AddrPortFrom(e.Addr().Unmap(), e.Port()); e.Port() == 0 {
			at[id] = netip.AddrPortFrom(e.Addr().Unmap(), ServerlessPort)
		}
	}
	c.Serverless, c.Transports, c.NoPortMap = &Serverless{at}, []string{"udp"}, true
	return nil
}

// at are the endpoints of peers without a server.
func (c Config) at() map[peer.ID]netip.AddrPort {
	if c.Serverless == nil {
		return nil
	}
	return c.Serverless.Peers
}

// server is the server's URL, empty if there is none.
func (n *Node) server() string {
	if n.cfg.Serverless != nil {
		return ""
	}
	return n.url.String()
}

// openBeacon opens what a node without a server needs beside UDP.
func (n *Node) openBeacon(ctx context.Context) (err error) {
	if n.cfg.Serverless == nil {
		return nil
	}
	if n.beacon, err = sock.OpenBeacon(ctx, n.cfg.Network); err != nil {
		return fmt.Errorf("bodkin: without a server: %w", err)
	}
	return nil
}

// keepBeacon holds our NAT open for hellos, and takes them.
func (n *Node) keepBeacon() {
	id := beaconID(n.ID())
	n.wg.Go(func() {
		every := time.NewTicker(beaconEvery)
		defer every.Stop()
		for {
			if err := n.beacon.Send(id); err != nil {
				n.cfg.Logger.Warn("no ping leaves: nobody finds this node", "error", err)
			}
			select {
			case <-every.C:
			case <-n.ctx.Done():
				return
			}
		}
	})
	n.wg.Go(func() {
		left, last := maxHellos, time.Now()
		err := n.beacon.Read(id, func(from netip.Addr, hello []byte) {
			if more := int(time.Since(last) / helloEvery); more > 0 {
				left, last = min(left+more, maxHellos), time.Now()
			}
			if left == 0 {
				n.core.TooManyHellos()
				return
			}
			left--
			n.offer(node.Input{Op: node.Greeted, From: netip.AddrPortFrom(from, 0), Data: hello})
		})
		if err != nil {
			n.cfg.Logger.Error("ICMP socket failed", "error", err)
		}
	})
}

// greet sends a hello to a listener.
func (n *Node) greet(a node.Action) {
	if err := n.beacon.Greet(a.By.To.Addr(), beaconID(a.ID), a.Data); err != nil {
		n.cfg.Logger.Warn("no hello leaves", "error", err)
	}
}

// untilReached bounds the wait for a peer that no server can say anything of.
func (n *Node) untilReached(ctx context.Context) (context.Context, context.CancelFunc) {
	if n.cfg.Serverless == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, serverlessTime)
}

// unreached says which side it is due to that a peer was not reached without a server.
func (n *Node) unreached(id peer.ID, err error) error {
	if n.cfg.Serverless == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	at := n.cfg.Serverless.Peers[id]
	own, ownErr := n.beacon.Source(at.Addr())
	n.known.mu.Lock()
	heard := 0
	if p := n.known.peers[peer.Overlay(id, 0)]; p != nil && p.account != nil {
		heard = p.account.Report.Heard
	}
	n.known.mu.Unlock()
	switch {
	case heard > 0:
		return fmt.Errorf("the peer hears us and answers, but nothing of ours gets to it by UDP at %v: it is the peer's side, whose NAT gave it another port or drops what we send; use a server", at)
	case ownErr == nil && (own.IsPrivate() || carrierGrade.Contains(own)):
		return fmt.Errorf("nothing came back from %v: most likely it is this side, which has the private address %v: its NAT does not translate the message that finds the peer; dial from a public address, or use a server", at.Addr(), own)
	default:
		return fmt.Errorf("nothing came back from %v: it is the peer's side, if this machine's provider lets ICMP out: nobody listens there without a server who lets us in, its clock is another, or its NAT changes the identifiers of pings or drops errors about them; see that it listens, or use a server", at.Addr())
	}
}

var carrierGrade = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
