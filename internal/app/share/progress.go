package share

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Progress counts what a transfer has done. It may be read at any time.
type Progress struct {
	total, kept, out, in atomic.Int64
	files                atomic.Int64
	began                atomic.Int64
}

// Counts is Progress at one moment, in bytes.
type Counts struct {
	Total int64 // of everything; 0 where it is not known
	Kept  int64 // that were there, and were not sent again
	Sent  int64 // that were written to the peer
	Got   int64 // that have arrived there
	Files int64 // that are whole, at the side that receives
	Since time.Time
}

// Counts reads the counters.
func (p *Progress) Counts() Counts {
	c := Counts{Total: p.total.Load(), Kept: p.kept.Load(), Sent: p.out.Load(), Got: p.in.Load(), Files: p.files.Load()}
	if ns := p.began.Load(); ns != 0 {
		c.Since = time.Unix(0, ns)
	}
	return c
}

// begin starts to count a transfer anew.
func (p *Progress) begin(total int64) {
	p.total.Store(total)
	p.kept.Store(0)
	p.out.Store(0)
	p.in.Store(0)
	p.files.Store(0)
	p.began.Store(time.Now().UnixNano())
}

func (p *Progress) keep(n int64)    { p.kept.Add(n) }
func (p *Progress) sent(n int64)    { p.out.Add(n) }
func (p *Progress) arrived(n int64) { p.in.Store(n) }
func (p *Progress) receive(n int64) { p.in.Add(n) }
func (p *Progress) finish()         { p.files.Add(1) }

// size is a number of bytes for people, in powers of 1000 as rates are.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= 999.95 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", value, " kMGTPE"[unit])
}
