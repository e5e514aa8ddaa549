package path

import (
	"time"

	"bodkin/punch"
)

// Account is what an attempt at a peer was made of, and what has come of it. A peer's
// is that of the attempt that found its latest hole, or else of the latest attempt.
type Account struct {
	Ours        bool // whether we asked for it, or the peer
	Began       time.Time
	Self, Other punch.Side // as both sides planned with
	Report      punch.Report
}

// account makes an attempt's account the peer's, and tells.
func (p *Peer) account(a *attempt) {
	p.counts = a
	told := a.told
	told.Report = *a.engine.Report()
	p.event(Happening{Kind: Accounted, Account: &told})
}
