package cli

import (
	"fmt"
	"strings"
	"time"

	"bodkin/internal/app/share"
)

// flow is how quickly something grows, over the last seconds.
type flow struct{ samples []sample }

type sample struct {
	at    time.Time
	bytes int64
}

// rateSpan is how far back a rate looks.
const rateSpan = 3 * time.Second

func (r *flow) add(now time.Time, bytes int64) {
	for len(r.samples) > 1 && now.Sub(r.samples[1].at) >= rateSpan {
		r.samples = r.samples[1:]
	}
	r.samples = append(r.samples, sample{now, bytes})
}

// now is the rate in bytes a second; 0 while it is not known.
func (r *flow) now() float64 {
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	if took := last.at.Sub(first.at).Seconds(); took > 0 {
		return float64(last.bytes-first.bytes) / took
	}
	return 0
}

// left is how long so many bytes take; 0 where it is not known.
func (r *flow) left(bytes int64) time.Duration {
	now := r.now()
	if now <= 0 || bytes <= 0 {
		return 0
	}
	return min(time.Duration(float64(bytes)/now*float64(time.Second)), 1000*time.Hour)
}

// barState is how far transfers are, together.
type barState struct {
	total, done int64
	unknown     bool // how much there is of one
	rate        float64
	left        time.Duration
	routes      []string
}

func (b *barState) add(c share.Counts, g *goingTransfer) {
	b.total += c.Total
	b.done += c.Kept + c.Got
	b.unknown = b.unknown || c.Total == 0
	b.rate += g.rate.now()
	b.left = max(b.left, g.rate.left(c.Total-c.Kept-c.Got))
	if g.route != "" {
		b.routes = append(b.routes, g.route)
	}
}

// barWidth is that of the bar alone: the line fits 80 columns.
const barWidth = 20

// text is the line.
func (b barState) text() string {
	speed := size(uint64(max(0, b.rate))) + "/s"
	route := strings.Join(b.routes, ", ")
	if b.unknown {
		return strings.TrimSuffix(fmt.Sprintf("%s, %s, %s", size(uint64(b.done)), speed, route), ", ")
	}
	share := float64(min(b.done, b.total)) / float64(b.total)
	full := int(share * barWidth)
	line := fmt.Sprintf("[%s%s] %3d%% of %s, %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), int(share*100), size(uint64(b.total)), speed)
	if b.left > 0 {
		line += ", " + span(b.left) + " left"
	}
	if route != "" {
		line += ", " + route
	}
	return line
}

// doneLine sums up what was sent or received.
func doneLine(verb, who string, c share.Counts, now time.Time) string {
	word := "to"
	if verb == verbReceived {
		word = "from"
	}
	took := now.Sub(c.Since)
	line := fmt.Sprintf("%s %s %s %s in %.1f s", verb, size(uint64(c.Got)), word, who, took.Seconds())
	if c.Got > 0 && took > 0 {
		line += fmt.Sprintf(", %s/s", size(uint64(float64(c.Got)/took.Seconds())))
	}
	if c.Kept > 0 {
		line += fmt.Sprintf("; %s were there already", size(uint64(c.Kept)))
	}
	return line
}

const (
	verbSent     = "sent"
	verbReceived = "received"
)
