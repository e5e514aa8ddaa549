package bodkin

import (
	"slices"
	"time"

	"bodkin/internal/path"
	"bodkin/nat"
	"bodkin/punch"
)

// NAT is what is known of the NAT that a node is behind, in the words of RFC 4787:
// see [nat.Profile].
type NAT struct {
	Mapping    string `json:"mapping"`
	Filtering  string `json:"filtering"`
	Allocation string `json:"allocation"`
	KeepsEarly string `json:"keeps_early"`
	Hairpin    string `json:"hairpin"`
}

func natOf(p nat.Profile) NAT {
	return NAT{
		Mapping: p.Mapping.String(), Filtering: p.Filtering.String(), Allocation: p.Ports.Allocation.String(),
		KeepsEarly: p.KeepsEarly.String(), Hairpin: p.Hairpin.String(),
	}
}

// Attempt is one attempt to open a hole to a peer: what both sides knew of their
// NATs when they planned it, and what has come of it.
type Attempt struct {
	Began time.Time `json:"began"`
	Ours  bool      `json:"ours"` // we asked for it, not the peer
	// NAT is ours, in an Explanation as it is known by now; PeerNAT is the peer's, as
	// it says.
	NAT     NAT `json:"nat"`
	PeerNAT NAT `json:"peer_nat"`
	// Tactics are those of the plan, in its order; Won is the one that the first
	// hole came of, empty if there is none.
	Tactics []Tactic `json:"tactics"`
	Won     string   `json:"won,omitempty"`
	// First is the time from the beginning to the first hole.
	First   time.Duration `json:"first_ns,omitempty"`
	Probes  int           `json:"probes"`  // sent
	Heard   int           `json:"heard"`   // probes of the peer that came in
	Sockets int           `json:"sockets"` // opened for it, besides the node's own
}

// Tactic is one way to open a hole, and what came of it: see [punch.Tactic].
type Tactic struct {
	Name   string `json:"tactic"`
	Result string `json:"result"` // running, won, not needed, no hole, interrupted, postponed
	Probes int    `json:"probes"` // sent
}

// Over reports whether all tactics have ended by themselves. An attempt that was
// interrupted is followed by another one at once.
func (a Attempt) Over() bool {
	return !slices.ContainsFunc(a.Tactics, func(t Tactic) bool {
		return t.Result == string(punch.Running) || t.Result == string(punch.Interrupted)
	})
}

func attemptOf(a *path.Account) *Attempt {
	if a == nil {
		return nil
	}
	return &Attempt{
		Began: a.Began, Ours: a.Ours, NAT: natOf(a.Self.Profile), PeerNAT: natOf(a.Other.Profile),
		Tactics: tacticsOf(&a.Report), Won: string(a.Report.Won()), First: a.Report.First,
		Probes: a.Report.Sent, Heard: a.Report.Heard, Sockets: a.Report.Sockets,
	}
}

func tacticsOf(r *punch.Report) (out []Tactic) {
	for _, o := range r.Outcomes {
		out = append(out, Tactic{Name: string(o.Tactic), Result: string(o.Result), Probes: o.Sent})
	}
	return out
}
