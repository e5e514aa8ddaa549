package portmap

import (
	"context"
	"net/netip"
	"time"
)

// protocol is one way to ask one gateway, as one address of ours. Its methods
// block, and are called from several goroutines. They return when ctx ends, at
// the latest.
//
// A method may take as long as the protocol's own retransmissions do. Nobody
// waits for it: while one protocol is silent the others are asked.
type protocol interface {
	name() Protocol

	// find returns when the gateway has shown that it speaks the protocol, with
	// its external address if that is told on the way. It must change nothing on
	// the router. When it fails it is called again later, ever less often, and
	// once more when addresses or gateways changed.
	find(ctx context.Context) (external netip.Addr, err error)

	// can is what is wrong with asking for a here, without asking, nil if nothing
	// is: another host's address, the other address family, remotes that the
	// protocol cannot restrict a mapping to. An error wraps ErrCannot. It is
	// called after find succeeded, and must not block.
	can(a ask) error

	// open asks for a mapping, renews one or takes one back after a reboot: had
	// is what was granted last, the zero grant if nothing was. It asks for a.exact
	// or else takes another port if the liked one is taken, by itself. An error
	// is one of errors.go, or wraps one of it, so that the caller can say what to do.
	//
	// A renewal that the router does not know is no error: the mapping is made
	// anew, at another port if need be.
	open(ctx context.Context, a ask, had grant) (grant, error)

	// remove takes back what open granted. A router that does not know of it any
	// more is no error.
	remove(ctx context.Context, a ask, had grant) error

	// close ends all that the protocol began by itself: sockets and goroutines.
	close()
}

// ask is what is wanted of a router: a Request with everything filled in.
type ask struct {
	transport Transport
	internal  netip.AddrPort // an address, always; of another host perhaps
	external  uint16         // liked, never 0
	exact     bool
	lifetime  time.Duration
	remotes   []Remote
	peer      netip.AddrPort
	text      string   // what the router's page shows
	nonce     [12]byte // PCP's: the same as long as the mapping lives
}

// grant is what a router granted.
type grant struct {
	// external is internal for a pinhole. Its address is not valid if the router
	// did not say.
	external netip.AddrPort
	lifetime time.Duration // 0: for ever
	// id is what the protocol needs to renew or remove it, if anything: the number
	// of a UPnP pinhole.
	id string
}

// surroundings are what a protocol gets when it is made.
type surroundings struct {
	gateway Gateway
	network Network
	// link is a socket to the gateway's port 5351, not opened until it is used.
	link *link
	// reset tells the client that the router seems to have lost its mappings, or
	// has another external address: all that it granted is asked for again.
	reset func()
}

// makers make the protocols for a gateway. A maker returns nil where its protocol
// cannot be spoken: NAT-PMP with a gateway whose address is IPv6. (A lane asks
// every protocol of its interface that can: an IPv6 pinhole may be had of the
// IPv4 gateway, by UPnP.)
var makers = map[Protocol]func(s surroundings) protocol{
	PCP:    newPCP,
	NATPMP: newNATPMP,
	UPnP:   newUPnP,
}
