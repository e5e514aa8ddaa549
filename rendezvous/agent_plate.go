package rendezvous

import (
	"errors"
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// Errors of pairing that the server's answers stand for, in words for people.
var (
	// ErrNoCode: nobody waits under that number.
	ErrNoCode = errors.New("no such code at this server: it has expired or was taken back, its number is another one, " +
		"or the other machine uses another server; ask for a new one")
	// ErrCodeUsed: somebody joined with that number before.
	ErrCodeUsed = errors.New("this code has been used already: ask for a new one; if it was not you, somebody else tried it")
	// ErrOwnCode: the code is our own.
	ErrOwnCode = errors.New("this code is this machine's own invitation; join with it on the other machine")
	// ErrCodeLost: the number is no longer ours at the server.
	ErrCodeLost = errors.New("the server was started again and has given the code's number to somebody else, " +
		"or somebody used it while the server could not be reached: make a new one")
	// ErrTooManyCodes: the server takes no more invitations, or no more tries to join.
	ErrTooManyCodes = errors.New("the server takes no more codes from here at the moment; try again in a minute")
	// ErrNoPairing: the server did not answer.
	ErrNoPairing = errors.New("it did not answer; it may be an older one, without codes: try again with a new code")
)

// agentPlate is a nameplate of ours, or one that we want.
type agentPlate struct {
	token   uint64
	number  wire.Plate    // 0 until the server has told it
	life    time.Duration // as wished for
	expires time.Time     // zero until then
}

// invite asks for a nameplate, now or as soon as we are registered.
func (a *Agent) invite(in AgentInput) {
	p := &agentPlate{token: in.Token, life: in.Lifetime}
	a.plates = append(a.plates, p)
	if a.primary != nil {
		a.openPlate(p)
	}
}

func (a *Agent) openPlate(p *agentPlate) {
	i := wire.Invitation{Plate: p.number, Lifetime: p.life}
	if p.number != 0 {
		i.Lifetime = p.expires.Sub(a.now).Round(time.Second)
	}
	if p.number != 0 && i.Lifetime <= 0 {
		return // whoever asked for it knows when it ends
	}
	a.request(&agentRequest{method: wire.Invite, content: i.Append(nil), token: p.token})
}

// openPlates asks for all nameplates, the server may have forgotten them: with a new
// registration it costs no more to be sure.
func (a *Agent) openPlates() {
	for _, p := range a.plates {
		if !slices.ContainsFunc(a.requests, func(q *agentRequest) bool { return q.method == wire.Invite && q.token == p.token }) {
			a.openPlate(p)
		}
	}
}

// plate is the one that a token names.
func (a *Agent) plate(token uint64) *agentPlate {
	if i := slices.IndexFunc(a.plates, func(p *agentPlate) bool { return p.token == token }); i >= 0 {
		return a.plates[i]
	}
	return nil
}

func (a *Agent) forgetPlate(token uint64) {
	a.plates = slices.DeleteFunc(a.plates, func(p *agentPlate) bool { return p.token == token })
}

// notInvited ends a wish for a nameplate, or a nameplate.
func (a *Agent) notInvited(token uint64, err error) {
	if a.plate(token) != nil {
		a.forgetPlate(token)
		a.emit(AgentAction{Op: AgentNotInvited, Token: token, Err: err})
	}
}

// uninvite gives a nameplate back.
func (a *Agent) uninvite(token uint64) {
	p := a.plate(token)
	if p == nil {
		return
	}
	a.forgetPlate(token)
	a.requests = slices.DeleteFunc(a.requests, func(q *agentRequest) bool { return q.method == wire.Invite && q.token == token })
	if p.number != 0 && a.primary != nil {
		a.request(&agentRequest{method: wire.Invite, content: wire.Invitation{Plate: p.number}.Append(nil)})
	}
}

// invited takes the answer to an Invite.
func (a *Agent) invited(e wire.Envelope, content wire.Attrs) {
	q := a.requested(e)
	if q == nil {
		return
	}
	p := a.plate(q.token)
	if p == nil {
		a.answered(q.id) // it was given back
		return
	}
	if e.Type.Class == stun.ClassErrorResponse {
		a.answered(q.id)
		err := ErrTooManyCodes
		if e.Code == wire.CodeUsed {
			err = ErrCodeLost
		}
		a.notInvited(q.token, err)
		return
	}
	got, err := wire.ParseInvitation(content)
	if err != nil || got.Plate == 0 || p.number != 0 && got.Plate != p.number {
		a.stats.Malformed++
		return
	}
	a.answered(q.id)
	if p.number == 0 {
		// Never longer than was wished for: a number that people were told is not good
		// for others then.
		life := min(got.Lifetime, p.life)
		p.number, p.expires = got.Plate, a.now.Add(life)
		a.emit(AgentAction{Op: AgentInvited, Token: p.token, Plate: p.number, Lifetime: life})
	}
}

// write sends a letter.
func (a *Agent) write(in AgentInput) {
	if a.primary == nil || len(a.requests) >= maxAsks {
		a.emit(AgentAction{Op: AgentWritten, Token: in.Token, Err: ErrNoPairing})
		return
	}
	content := wire.Letter{Plate: in.Plate, Body: in.Data}.Append(nil)
	a.request(&agentRequest{method: wire.Pair, content: content, token: in.Token})
}

// written takes the answer to a letter.
func (a *Agent) written(e wire.Envelope) {
	q := a.requested(e)
	if q == nil {
		return
	}
	a.answered(q.id)
	a.emit(AgentAction{Op: AgentWritten, Token: q.token, Err: letterError(e)})
}

func letterError(e wire.Envelope) error {
	switch {
	case e.Type.Class != stun.ClassErrorResponse:
		return nil
	case e.Code == wire.CodeUsed:
		return ErrCodeUsed
	case e.Code == wire.CodeForbidden:
		return ErrOwnCode
	case e.Code == wire.CodeTooMany:
		return ErrTooManyCodes
	default:
		return ErrNoCode
	}
}

// letter takes a letter, and acknowledges it.
func (a *Agent) letter(l *serverLeg, e wire.Envelope, content wire.Attrs) {
	letter, err := wire.ParseLetter(content)
	if err != nil || letter.From.IsZero() {
		a.stats.Malformed++
		return
	}
	a.send(l, a.seal(stun.NewType(wire.Pair, stun.ClassSuccessResponse), e.ID, nil, nil))
	if !a.repeated(e.ID) {
		a.emit(AgentAction{Op: AgentLetter, Plate: letter.Plate, From: letter.From, Data: letter.Body})
	}
}
