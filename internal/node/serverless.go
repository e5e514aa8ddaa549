package node

import (
	"errors"
	"net/netip"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/punch"
)

// staleAfter is how far the clocks of two peers without a server may be apart: older
// hellos are replays.
const staleAfter = 5 * time.Minute

var errNowhere = errors.New("there is no server, and no address to find the peer at")

// greet begins to punch to a peer without a server. All that is known of it is where it
// is; what it learns of us is the offer, which nobody but it can read.
func (c *Core) greet(m *member, offer []byte) {
	at, ok := c.cfg.At[m.peer.ID]
	if !ok {
		c.step(m, path.Input{Op: path.AskFailed, Err: errNowhere})
		return
	}
	c.emit(Action{Op: Greet, ID: m.peer.ID, By: path.Key{To: at}, Data: offer})
	other := punch.Side{Abilities: punch.ByUDP}
	c.step(m, path.Input{Op: path.Introduced, Party: wire.Party{
		ID: m.peer.ID, Observed: []netip.AddrPort{at}, Description: other.AppendDescription(nil),
	}})
}

// greeted takes a hello: an offer that is sealed for no server, and counted by the clock.
// Its sender is where it came from, at the port that it says.
func (c *Core) greeted(in Input) {
	from, offer, err := c.openOffer(in.Data)
	if err != nil {
		c.ignored.add(forgedOffer, 1)
		return
	}
	if age := c.now.Sub(time.UnixMilli(int64(offer.Counter))); age.Abs() > staleAfter {
		c.ignored.add(staleHello, 1)
		return
	}
	side, err := punch.ParseDescription(offer.Description)
	if err != nil {
		c.ignored.add(malformedOffer, 1)
		return
	}
	for _, x := range side.Candidates {
		if x.Kind == punch.Host && x.Transport == punch.UDP && x.Endpoint.Addr().Is4() {
			c.offered(wire.Party{
				ID: from, Instance: offer.Instance,
				Observed: []netip.AddrPort{netip.AddrPortFrom(in.From.Addr(), x.Endpoint.Port())},
			}, offer, path.Key{})
			return
		}
	}
	c.ignored.add(malformedOffer, 1)
}

// stamp makes the counter of offers a clock where no server vouches for their age.
func (c *Core) stamp() {
	if c.cfg.Serverless {
		c.self.Offers = max(c.self.Offers, uint64(c.now.UnixMilli()))
	}
}

// TooManyHellos counts those that nobody opened. It may be called beside Step.
func (c *Core) TooManyHellos() { c.ignored.add(tooManyHello, 1) }
