package forward

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"bodkin"
	"bodkin/peer"
)

// Kind says what happened.
type Kind string

// Kinds of events.
const (
	// Listening: clients can connect at Forward.Listen. For a reverse forward that is
	// an endpoint of the peer's.
	Listening Kind = "listening"
	// Ready: the peer is there and allows the forward.
	Ready Kind = "ready"
	// Unreachable: the peer could not be reached, for Err. It is tried again with the
	// next connection.
	Unreachable Kind = "unreachable"
	// Refused: the peer did not connect, for Err, a *RefusedError.
	Refused Kind = "refused"
	// Missed: the target of a reverse forward, which is here, could not be reached, for
	// Err.
	Missed Kind = "missed"
	// Denied: a peer asked us for what no rule allows; Forward says what.
	Denied Kind = "denied"
	// Serving: peers can ask from now on.
	Serving Kind = "serving"
	// Failed: Run could not begin, for Err, and whoever called it tries again.
	Failed Kind = "failed"
)

// Event is something that happened to a forward, or to those who serve.
type Event struct {
	Kind    Kind
	Forward Forward
	Err     error
}

// String is the event in words for people.
func (e Event) String() string { return e.Words(peer.ID.Short) }

// Words are the event in words for people, who know peers by these names.
func (e Event) Words(name func(peer.ID) string) string {
	f, who := e.Forward, "peer "+name(e.Forward.Peer)
	switch e.Kind {
	case Listening:
		return "forwarding " + f.between(who)
	case Ready:
		return fmt.Sprintf("ready: %s lets us reach %s", who, e.theirs())
	case Unreachable:
		return fmt.Sprintf("%s cannot be reached: %v; each new connection tries again", who, e.Err)
	case Refused:
		if refused, ok := errors.AsType[*RefusedError](e.Err); ok {
			return refused.words(who)
		}
		return e.Err.Error()
	case Missed:
		return fmt.Sprintf("%s had a client for %s here: %v", who, f.To, e.Err)
	case Denied:
		if f.Reverse {
			return fmt.Sprintf("refused: %s wanted to listen on %s, which is not allowed", who, f.Listen)
		}
		return fmt.Sprintf("refused: %s wanted to reach %s, which is not allowed", who, f.To)
	case Failed:
		return fmt.Sprintf("cannot forward %s, and will try again: %v", f.between(who), e.Err)
	case Serving:
		return "ready: peers can ask for these ports"
	default:
		return string(e.Kind)
	}
}

// between is from where to where it leads.
func (f Forward) between(who string) string {
	if f.Reverse {
		return fmt.Sprintf("%s of %s to %s here", f.Listen, who, f.To)
	}
	return fmt.Sprintf("%s to %s of %s", f.Listen, f.To, who)
}

// theirs is what the peer has of the forward.
func (e Event) theirs() Endpoint {
	if e.Forward.Reverse {
		return e.Forward.Listen
	}
	return e.Forward.To
}

// JSON is the event for programs.
func (e Event) JSON() any {
	out := struct {
		Event   Kind    `json:"event"`
		Peer    peer.ID `json:"peer,omitzero"`
		Listen  string  `json:"listen,omitempty"`
		To      string  `json:"to,omitempty"`
		Reverse bool    `json:"reverse,omitempty"`
		Reason  string  `json:"reason,omitempty"`
	}{Event: e.Kind, Peer: e.Forward.Peer, Reverse: e.Forward.Reverse}
	if e.Forward.Listen.Network != "" {
		out.Listen = e.Forward.Listen.String()
	}
	if e.Forward.To.Network != "" {
		out.To = e.Forward.To.String()
	}
	if e.Err != nil {
		out.Reason = e.Err.Error()
	}
	return out
}

// RefusedError says that the peer was reached and did not connect.
type RefusedError struct {
	Peer peer.ID
	Wish Wish    // what it was asked for
	Self peer.ID // who asked

	status status
	text   string
	err    error // of the node, where the service is not there at all
}

// Unwrap is what the node said, if it was the node that refused.
func (e *RefusedError) Unwrap() error { return e.err }

// Error says what the peer did not do, why, and who can do what about it.
func (e *RefusedError) Error() string { return e.words("peer " + e.Peer.Short()) }

func (e *RefusedError) words(who string) string {
	what := e.Wish.String()
	there := ""
	if e.text != "" {
		there = " (" + e.text + ")"
	}
	switch e.status {
	case statusNotAllowed:
		return fmt.Sprintf("%s does not allow us %s; on that machine, allow it with: %s", who, e.Wish.words(), e.allow())
	case statusRefused:
		return fmt.Sprintf("nothing listens at %s of %s: connection refused", what, who)
	case statusNoHost:
		return fmt.Sprintf("%s knows no host of the name in %s%s", who, what, there)
	case statusUnreachable:
		return fmt.Sprintf("%s gets no answer from %s%s", who, what, there)
	case statusTaken:
		return fmt.Sprintf("%s cannot listen on %s: another program there does%s", who, what, there)
	case statusVersion:
		return fmt.Sprintf("%s speaks another version of the protocol; update the older of the two programs", who)
	default:
		if e.err != nil {
			return fmt.Sprintf("%s forwards nothing; on that machine, allow it with: %s", who, e.allow())
		}
		return fmt.Sprintf("%s could not do it for %s%s", who, what, there)
	}
}

// words are what the peer was asked for.
func (w Wish) words() string {
	if w.Reverse {
		return "to listen on " + w.String()
	}
	return "to reach " + w.String()
}

// allow is the command that would allow it.
func (e *RefusedError) allow() string {
	flag := ""
	if e.Wish.Reverse {
		flag = "--reverse "
	}
	return fmt.Sprintf("bodkin serve-port --peer %s %s%s", e.Self, flag, e.Wish.Endpoint)
}

// explain completes an error of the peer's with what it was about.
func (r *runner) explain(err error) error {
	if err == nil {
		return nil
	}
	wish := Wish{Endpoint: r.To}
	if r.Reverse {
		wish = Wish{Endpoint: r.Listen, Reverse: true}
	}
	var refused *RefusedError
	var node *bodkin.RefusedError
	switch {
	case errors.As(err, &refused):
	case errors.As(err, &node) && node.NoService():
		refused = &RefusedError{status: statusFailed, err: err}
	default:
		return err
	}
	refused.Peer, refused.Self, refused.Wish = r.Peer, r.node.ID(), wish
	return refused
}

// printable keeps a peer's words from doing anything to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
