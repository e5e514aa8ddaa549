package daemon

import (
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// State is how a forward is.
type State string

// States of forwards.
const (
	Starting    State = "starting"
	Listening   State = "listening"   // here; of the peer nothing is known yet
	Ready       State = "ready"       // the peer allows it
	Unreachable State = "unreachable" // the peer was not there when it was last tried
	Refused     State = "refused"     // by the peer, when it was last tried
	Missed      State = "missed"      // the target here was not there for a client of the peer's
	Failed      State = "failed"      // it cannot listen here, and tries again
)

// Status is what a daemon does.
type Status struct {
	Peers    []peer.ID       `json:"peers"` // who may connect
	Forwards []ForwardStatus `json:"forwards"`
	Allows   []AllowStatus   `json:"allows"`
}

// ForwardStatus is a forward, in the order of the file.
type ForwardStatus struct {
	Listen  string  `json:"listen"`
	Peer    peer.ID `json:"peer"`
	To      string  `json:"to"`
	Reverse bool    `json:"reverse,omitempty"`
	State   State   `json:"state"`
	Reason  string  `json:"reason,omitempty"`
	Counts
}

// AllowStatus is an allowance, in the order of the file.
type AllowStatus struct {
	Peer    peer.ID `json:"peer,omitzero"` // left out: all who may connect
	To      string  `json:"to"`
	Reverse bool    `json:"reverse,omitempty"`
	Used    uint64  `json:"used"` // how often something was allowed by it
}

// Status is a snapshot of what the daemon does.
func (d *Daemon) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Peers: d.plan.Peers, Forwards: []ForwardStatus{}, Allows: []AllowStatus{}}
	for _, f := range d.plan.Forwards {
		if r := d.forwards[f]; r != nil {
			s.Forwards = append(s.Forwards, r.status())
		}
	}
	for _, r := range d.plan.Rules {
		s.Allows = append(s.Allows, AllowStatus{Peer: r.Peer, To: r.String(), Reverse: r.Reverse, Used: d.uses[r]})
	}
	return s
}

func (r *running) status() ForwardStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ForwardStatus{
		Listen: r.at.String(), Peer: r.Peer, To: r.To.String(), Reverse: r.Reverse, State: r.state, Counts: r.counts(),
	}
	if r.reason != nil {
		s.Reason = r.reason.Error()
	}
	return s
}

var _ forward.Counter = counting{}
