package rendezvous

import (
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// agentRequest is a request while it is under way, but for what keeps a registration.
type agentRequest struct {
	method  stun.Method
	id      wire.TransactionID
	content wire.Attrs
	channel wire.Channel // of an Introduce or CloseChannel
	tries   int
	nextAt  time.Time
	token   uint64  // of an Introduce, Invite or Pair
	target  peer.ID // of an Introduce
}

// agentChannel is a relay channel whose number we chose.
type agentChannel struct {
	target peer.ID
	open   bool // the server has it
}

const (
	requestTries = 8
	// maxAsks bounds what a node has under way; the server's limits are lower.
	maxAsks = 256
)

// ask sends a request, and says at once which relay channel it opens.
func (a *Agent) ask(in AgentInput) {
	fail := func(err error) { a.emit(AgentAction{Op: AgentNotIntroduced, Token: in.Token, Err: err}) }
	secret, err := a.cfg.Key.Shared(in.Target)
	if err != nil {
		fail(err)
		return
	}
	c, ok := a.channel(in.Target)
	if a.primary == nil || len(a.requests) >= maxAsks || !ok {
		fail(ErrNoIntroduction)
		return
	}
	ask := wire.Ask{Target: in.Target, Channel: c, Offer: in.Offer}
	today := wire.Epoch(a.now)
	for _, day := range []uint32{today, today - 1, today + 1} {
		ask.Tags = append(ask.Tags, wire.PolicyTag(secret, a.cfg.Key.ID(), in.Target, a.cfg.Server, day))
	}
	a.request(&agentRequest{method: wire.Introduce, content: ask.Append(nil), channel: c, token: in.Token, target: in.Target})
	a.emit(AgentAction{Op: AgentAsking, To: a.primary.ServerEndpoint, Token: in.Token, Channel: c})
}

func (a *Agent) request(q *agentRequest) {
	q.id, q.nextAt = a.transaction(), a.now
	a.requests = append(a.requests, q)
}

// channel is our number for the relay channel to a target: the same as long as
// there is one, so that being introduced again keeps the channel.
func (a *Agent) channel(target peer.ID) (wire.Channel, bool) {
	for c, x := range a.channels {
		if x.target == target {
			return c, true
		}
	}
	for range wire.ChannelsPerHalf {
		c := wire.FirstAskedChannel + a.nextChan%wire.ChannelsPerHalf
		a.nextChan++
		if a.channels[c] == nil {
			a.channels[c] = &agentChannel{target: target}
			return c, true
		}
	}
	return 0, false
}

// runRequests sends what is due and returns when the next one is.
func (a *Agent) runRequests() (next time.Time) {
	for _, q := range slices.Clone(a.requests) {
		if !a.now.Before(q.nextAt) {
			if q.tries >= requestTries {
				a.unanswered(q)
				continue
			}
			q.nextAt = a.now.Add(a.primary.again(q.tries))
			q.tries++
			a.send(a.primary, a.seal(stun.NewType(q.method, stun.ClassRequest), q.id, nil, q.content))
		}
		if next.IsZero() || q.nextAt.Before(next) {
			next = q.nextAt
		}
	}
	return next
}

// answered ends the request of that transaction.
func (a *Agent) answered(id wire.TransactionID) {
	a.requests = slices.DeleteFunc(a.requests, func(q *agentRequest) bool { return q.id == id })
}

// asked ends a request with an answer. A number that never was a channel is free
// again after a refusal.
func (a *Agent) asked(q *agentRequest, answer AgentAction) {
	a.answered(q.id)
	if q.method != wire.Introduce {
		return
	}
	if x := a.channels[q.channel]; x != nil && x.target == q.target {
		if answer.Op == AgentIntroduced {
			x.open = true
		} else if !x.open {
			delete(a.channels, q.channel)
		}
	}
	answer.Token, answer.Channel = q.token, q.channel
	a.emit(answer)
}

func (a *Agent) failRequests() {
	for _, q := range slices.Clone(a.requests) {
		a.unanswered(q)
	}
}

// unanswered ends a request that the server did not answer.
func (a *Agent) unanswered(q *agentRequest) {
	switch q.method {
	case wire.Invite:
		a.answered(q.id)
		if a.primary != nil { // or else the next registration asks again
			a.notInvited(q.token, ErrNoPairing)
		}
	case wire.Pair:
		a.answered(q.id)
		a.emit(AgentAction{Op: AgentWritten, Token: q.token, Err: ErrNoPairing})
	default:
		a.asked(q, AgentAction{Op: AgentNotIntroduced, Err: ErrNoIntroduction})
	}
}

// requested is the request that an envelope answers.
func (a *Agent) requested(e wire.Envelope) *agentRequest {
	i := slices.IndexFunc(a.requests, func(q *agentRequest) bool { return q.id == e.ID && q.method == e.Type.Method })
	if i < 0 {
		return nil // answered already
	}
	return a.requests[i]
}

// introduced takes the answer to a request of ours.
func (a *Agent) introduced(e wire.Envelope, content wire.Attrs) {
	q := a.requested(e)
	if q == nil {
		return
	}
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
		a.stats.Malformed++
		return
	}
	a.asked(q, AgentAction{Op: AgentIntroduced, To: a.primary.ServerEndpoint, Party: p})
}

// wanted takes an introduction that another node asked for, and acknowledges it.
// A repeated one is only acknowledged again.
func (a *Agent) wanted(l *serverLeg, e wire.Envelope, content wire.Attrs) {
	p, err := wire.ParseParty(content)
	if err != nil {
		a.stats.Malformed++
		return
	}
	a.send(l, a.seal(stun.NewType(wire.Introduced, stun.ClassSuccessResponse), e.ID, nil, nil))
	if a.repeated(e.ID) {
		return
	}
	a.emit(AgentAction{Op: AgentAsked, To: a.primary.ServerEndpoint, Channel: p.Channel, Party: p})
}

// repeated reports whether the server has told us that before, and remembers it.
func (a *Agent) repeated(id wire.TransactionID) bool {
	if slices.Contains(a.told[:], id) {
		return true
	}
	a.told[a.toldN%len(a.told)] = id
	a.toldN++
	return false
}

func (a *Agent) closeChannel(c wire.Channel) {
	delete(a.channels, c)
	if a.primary == nil {
		return
	}
	var content wire.Attrs
	content.AddChannel(c)
	a.request(&agentRequest{method: wire.CloseChannel, content: content, channel: c})
}

// channelLost drops a channel that the server does not have, unless our request
// for it is still under way: data leaves beside the request, and may come first.
func (a *Agent) channelLost(c wire.Channel) {
	if slices.ContainsFunc(a.requests, func(q *agentRequest) bool { return q.channel == c && q.method == wire.Introduce }) {
		return
	}
	delete(a.channels, c)
	a.emit(AgentAction{Op: AgentChannelLost, To: a.primary.ServerEndpoint, Channel: c})
}

// forgetChannels forgets all channels, but for the numbers that requests under way
// name.
func (a *Agent) forgetChannels() {
	a.requests = slices.DeleteFunc(a.requests, func(q *agentRequest) bool { return q.method == wire.CloseChannel })
	for c, x := range a.channels {
		x.open = false
		if !slices.ContainsFunc(a.requests, func(q *agentRequest) bool { return q.channel == c }) {
			delete(a.channels, c)
		}
	}
}
