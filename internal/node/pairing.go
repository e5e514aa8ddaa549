package node

import (
	"errors"
	"slices"
	"time"

	"bodkin/internal/pair"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// pairing is a code of ours that somebody may join by, or our joining by a code. One
// of inviter and joiner is set, that of an invitation when its nameplate is known.
type pairing struct {
	token   uint64
	plate   wire.Plate
	secret  pair.Secret
	inviter *pair.Inviter
	joiner  *pair.Joiner
	ends    time.Time // when it fails by itself
	why     error     // and why
	over    bool      // how it ended is said here, but the last letter has yet to leave
}

// pairTime is how long the other side may take once it has begun. No person is
// waited for any more.
const pairTime = 20 * time.Second

// ErrCodeExpired ends an invitation that nobody used in time.
var ErrCodeExpired = errors.New("nobody has used the code in time: make a new one")

// invite asks for a nameplate. The words are ours: the server never sees them.
func (c *Core) invite(in Input) {
	c.pairings = append(c.pairings, &pairing{token: in.Token, secret: pair.NewSecret(c.cfg.Rand)})
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentInvite, Token: in.Token, Lifetime: in.Lifetime})
}

// join sends the first letter to whoever waits at a code's nameplate.
func (c *Core) join(in Input) {
	p := &pairing{
		token: in.Token, plate: wire.Plate(in.Code.Plate),
		joiner: pair.NewJoiner(c.cfg.Key, c.cfg.Server, in.Code, c.cfg.Rand),
		ends:   c.now.Add(pairTime), why: pair.ErrSilent,
	}
	c.pairings = append(c.pairings, p)
	c.write(p, p.joiner.First())
}

// endPairing forgets a pairing.
func (c *Core) endPairing(token uint64) {
	c.pairings = slices.DeleteFunc(c.pairings, func(p *pairing) bool { return p.token == token })
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentUninvite, Token: token})
	c.emit(Action{Op: PairingOver, Token: token})
}

func (c *Core) pairing(of func(*pairing) bool) *pairing {
	if i := slices.IndexFunc(c.pairings, of); i >= 0 {
		return c.pairings[i]
	}
	return nil
}

func (c *Core) pairingOf(token uint64) *pairing {
	return c.pairing(func(p *pairing) bool { return p.token == token })
}

func (c *Core) write(p *pairing, letter []byte) {
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentWrite, Token: p.token, Plate: p.plate, Data: letter})
}

func (c *Core) notPaired(p *pairing, err error) {
	c.emit(Action{Op: NotPaired, Token: p.token, Err: err})
	c.endPairing(p.token)
}

// invited takes in which nameplate we have: the code is complete.
func (c *Core) invited(a rendezvous.AgentAction) {
	p := c.pairingOf(a.Token)
	if p == nil {
		return
	}
	code := pair.Code{Plate: uint32(a.Plate), Secret: p.secret}
	p.plate, p.inviter = a.Plate, pair.NewInviter(c.cfg.Key, c.cfg.Server, code, c.cfg.Rand)
	p.ends, p.why = c.now.Add(a.Lifetime), ErrCodeExpired
	c.emit(Action{Op: Invited, Token: p.token, Code: code, Until: p.ends})
}

// wrote takes in what became of a letter. The last one is the inviter's.
func (c *Core) wrote(token uint64, err error) {
	p := c.pairingOf(token)
	switch {
	case p == nil:
	case p.over:
		c.endPairing(token)
	case err == nil:
	case p.inviter != nil:
		c.notPaired(p, pair.ErrUnfinished)
	case p.joiner.Answered() && !errors.Is(err, rendezvous.ErrNoPairing):
		c.notPaired(p, pair.ErrSilent)
	default:
		c.notPaired(p, err)
	}
}

// letter takes what the server says that the other one at a nameplate wrote. An
// invitation is used by the first letter, whatever comes of it.
func (c *Core) letter(plate wire.Plate, from peer.ID, b []byte) {
	p := c.pairing(func(p *pairing) bool { return p.plate == plate && !p.ends.IsZero() && !p.over })
	if p == nil {
		c.ignored.add(strayLetter, 1)
		return
	}
	var (
		answer []byte
		done   bool
		err    error
	)
	if p.joiner != nil {
		answer, done, err = p.joiner.Take(from, b)
	} else {
		p.ends, p.why = c.now.Add(pairTime), pair.ErrUnfinished
		c.tell(rendezvous.AgentInput{Op: rendezvous.AgentUninvite, Token: p.token})
		answer, done, err = p.inviter.Take(from, b)
	}
	p.over = done || err != nil
	switch {
	case done:
		c.emit(Action{Op: Paired, Token: p.token, ID: from})
	case err != nil:
		c.emit(Action{Op: NotPaired, Token: p.token, Err: err})
	}
	if answer != nil {
		c.write(p, answer)
	} else {
		c.endPairing(p.token)
	}
}

// tickPairings ends what has lasted too long, and returns when the next one will.
func (c *Core) tickPairings() (next time.Time) {
	for _, p := range slices.Clone(c.pairings) {
		switch {
		case p.ends.IsZero() || p.over:
		case !c.now.Before(p.ends):
			c.notPaired(p, p.why)
		case next.IsZero() || p.ends.Before(next):
			next = p.ends
		}
	}
	return next
}
