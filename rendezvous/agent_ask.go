package rendezvous

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// agentAsk is a request for an introduction while it is under way.
type agentAsk struct {
	token  uint64
	target peer.ID
	id     wire.TransactionID
	ask    wire.Ask
	tries  int
	nextAt time.Time
}

const (
	askTries = 8
	// maxAsks bounds what a node has under way; the server's limits are lower.
	maxAsks = 256
)

// ask sends a request, and says at once which relay channel it opens.
func (a *Agent) ask(in AgentInput) {
	fail := func(err error) { a.emit(AgentAction{Op: AgentNotIntroduced, Token: in.Token, Err: err}) }
	if a.state != stateUp || len(a.asks) >= maxAsks {
		fail(ErrNoIntroduction)
		return
	}
	secret, err := a.cfg.Key.Shared(in.Target)
	if err != nil {
		fail(err)
		return
	}
	q := &agentAsk{token: in.Token, target: in.Target, id: a.transaction(), nextAt: a.now}
	q.ask = wire.Ask{Target: in.Target, Channel: a.channel(in.Target), Offer: in.Offer}
	today := wire.Epoch(a.now)
	for _, day := range []uint32{today, today - 1, today + 1} {
		q.ask.Tags = append(q.ask.Tags, wire.PolicyTag(secret, a.cfg.Key.ID(), in.Target, a.cfg.Server, day))
	}
	a.asks = append(a.asks, q)
	a.emit(AgentAction{Op: AgentAsking, To: a.primary.ServerEndpoint, Token: in.Token, Channel: q.ask.Channel})
}

// channel is our number for the relay channel to a target: always the same, so
// that being introduced again keeps the channel.
func (a *Agent) channel(target peer.ID) wire.Channel {
	if c, ok := a.channels[target]; ok {
		return c
	}
	if a.channels == nil {
		a.channels = make(map[peer.ID]wire.Channel)
	}
	c := wire.FirstAskedChannel + a.nextChan%wire.ChannelsPerHalf
	a.nextChan++
	a.channels[target] = c
	return c
}

// runAsks repeats what is due and returns when the next one is.
func (a *Agent) runAsks() (next time.Time) {
	for _, q := range slices.Clone(a.asks) {
		if !a.now.Before(q.nextAt) {
			if q.tries >= askTries {
				a.asked(q, AgentAction{Op: AgentNotIntroduced, Err: ErrNoIntroduction})
				continue
			}
			q.nextAt = a.now.Add(a.primary.rto(q.tries))
			q.tries++
			a.send(a.primary, a.seal(stun.NewType(wire.Introduce, stun.ClassRequest), q.id, nil, q.ask.Append(nil)))
		}
		if next.IsZero() || q.nextAt.Before(next) {
			next = q.nextAt
		}
	}
	return next
}

// asked ends a request with an answer.
func (a *Agent) asked(q *agentAsk, answer AgentAction) {
	a.asks = slices.DeleteFunc(a.asks, func(x *agentAsk) bool { return x == q })
	answer.Token, answer.Channel = q.token, q.ask.Channel
	a.emit(answer)
}

func (a *Agent) failAsks(err error) {
	for _, q := range slices.Clone(a.asks) {
		a.asked(q, AgentAction{Op: AgentNotIntroduced, Err: err})
	}
}

// packet takes a STUN packet from one of the server's endpoints.
func (a *Agent) packet(from netip.AddrPort, b []byte) {
	i := slices.IndexFunc(a.servers, func(l *serverLeg) bool { return l.Addr == from })
	m, err := wire.Decode(b)
	if i < 0 || err != nil {
		return
	}
	l := a.servers[i]
	if e, err := wire.ParseEnvelope(m); err == nil {
		a.sealed(l, e, m)
		return
	}
	if m.Type.Class != stun.ClassErrorResponse || m.TransactionID != l.id {
		// A repeated Ask meets a restarted server: the same hint.
		if m.Type == stun.NewType(wire.Introduce, stun.ClassErrorResponse) &&
			slices.ContainsFunc(a.asks, func(q *agentAsk) bool { return q.id == m.TransactionID }) {
			a.hint()
		}
		return
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(m) != nil {
		return
	}
	switch int(code.Code) {
	case int(stun.CodeUnauthorized), int(stun.CodeStaleNonce):
		if nonce, err := m.Get(stun.AttrNonce); err == nil && len(nonce) <= 128 {
			a.challenged(l, nonce)
		}
	case wire.CodeUnknownRegistration:
		a.hint()
	case wire.CodeTooMany:
		if a.state == stateProving && !a.reported {
			a.reported = true
			a.emit(AgentAction{Op: AgentFailed, Err: ErrServerFull})
		}
	}
}

// sealed takes what the server alone can have said.
func (a *Agent) sealed(l *serverLeg, e wire.Envelope, m *stun.Message) {
	if m.Type == stun.NewType(wire.Register, stun.ClassSuccessResponse) {
		if a.state == stateProving && l == a.primary && e.ID == l.id && a.box != nil {
			a.registered(l, e, m)
		}
		return
	}
	if a.state != stateUp || e.Handle != a.handle {
		return
	}
	content, err := wire.Open(m, e.Sequence, &a.keys.ToNode)
	if err != nil || !a.window.Take(e.Sequence) {
		return
	}
	switch m.Type {
	case stun.NewType(wire.Refresh, stun.ClassSuccessResponse):
		a.refreshed(l, e, content)
	case stun.NewType(wire.Introduce, stun.ClassSuccessResponse), stun.NewType(wire.Introduce, stun.ClassErrorResponse):
		a.introduced(e, content)
	case stun.NewType(wire.Introduced, stun.ClassRequest):
		a.wanted(l, e, content)
	case stun.NewType(wire.CloseChannel, stun.ClassIndication), stun.NewType(wire.ChannelError, stun.ClassIndication):
		if c, ok := content.Channel(); ok {
			a.channelLost(c)
		}
	case stun.NewType(wire.Notice, stun.ClassIndication):
		if f, _ := content.Uint32(wire.AttrFlags); f&wire.FlagDisplaced != 0 {
			a.displace()
		}
	}
}

func (a *Agent) refreshed(l *serverLeg, e wire.Envelope, content wire.Attrs) {
	if e.ID != l.id {
		return
	}
	r, err := wire.ParseRegistered(content)
	if err != nil {
		return
	}
	a.measure(l)
	a.alive(l)
	a.say(l, r, false)
	if a.dirty {
		a.refresh(a.primary, true)
	}
}

// introduced takes the answer to a request of ours.
func (a *Agent) introduced(e wire.Envelope, content wire.Attrs) {
	i := slices.IndexFunc(a.asks, func(q *agentAsk) bool { return q.id == e.ID })
	if i < 0 {
		return
	}
	q := a.asks[i]
	if e.Type.Class == stun.ClassErrorResponse {
		err := ErrNotReachable
		if e.Code == wire.CodeTooMany {
			err = ErrTooMany
		}
		a.asked(q, AgentAction{Op: AgentNotIntroduced, Err: err})
		return
	}
	p, err := wire.ParseParty(content)
	if err != nil || p.ID != q.target {
		return
	}
	a.asked(q, AgentAction{Op: AgentIntroduced, To: a.primary.ServerEndpoint, Party: p})
}

// wanted takes an introduction that another node asked for, and acknowledges it.
// A repeated one is only acknowledged again.
func (a *Agent) wanted(l *serverLeg, e wire.Envelope, content wire.Attrs) {
	p, err := wire.ParseParty(content)
	if err != nil {
		return
	}
	a.send(l, a.seal(stun.NewType(wire.Introduced, stun.ClassSuccessResponse), e.ID, nil, nil))
	if slices.Contains(a.told[:], e.ID) {
		return
	}
	a.told[a.toldN%len(a.told)] = e.ID
	a.toldN++
	a.emit(AgentAction{Op: AgentAsked, To: a.primary.ServerEndpoint, Channel: p.Channel, Party: p})
}

func (a *Agent) closeChannel(c wire.Channel) {
	a.forgetChannel(c)
	if a.state != stateUp {
		return
	}
	var content wire.Attrs
	content.AddChannel(c)
	a.send(a.primary, a.seal(stun.NewType(wire.CloseChannel, stun.ClassRequest), a.transaction(), nil, content))
}

// channelLost drops a channel that the server does not have, unless our request
// for it is still under way: data leaves beside the request, and may come first.
func (a *Agent) channelLost(c wire.Channel) {
	if slices.ContainsFunc(a.asks, func(q *agentAsk) bool { return q.ask.Channel == c }) {
		return
	}
	a.forgetChannel(c)
	a.emit(AgentAction{Op: AgentChannelLost, To: a.primary.ServerEndpoint, Channel: c})
}

func (a *Agent) forgetChannel(c wire.Channel) {
	for target, x := range a.channels {
		if x == c {
			delete(a.channels, target)
		}
	}
}
