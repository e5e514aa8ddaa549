package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bodkin"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

type pingFlags struct {
	untilDirect bool
	count       int
	timeout     time.Duration
	interval    time.Duration
}

// pingAnswer is a line of `bodkin ping --json`.
type pingAnswer struct {
	Route     string         `json:"route"`
	Endpoint  netip.AddrPort `json:"endpoint"`
	RTT       float64        `json:"rtt_ms"`
	ElapsedMS float64        `json:"elapsed_ms"`
}

func (a *app) pingCommand() *cobra.Command {
	var f pingFlags
	c := &cobra.Command{
		Use:   "ping PEER",
		Short: "Show by which route a peer answers, and how quickly",
		Long: `Ask a peer for an answer again and again, and show by which route each came, from
which endpoint, and after how long. A listening node answers whatever its
services are. With --until-direct it ends with 0 at the first answer over a
direct route, and with 1 when the time is up.

With --json it prints an object an answer: route (relay, udp, tcp, icmp), endpoint (where
packets to the peer go), rtt_ms, and elapsed_ms since it began to connect, after
its own registration.`,
		Example: "  bodkin ping PEER\n  bodkin ping --count 3 --json PEER\n  bodkin ping --until-direct --timeout 10s PEER",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := a.peer(args[0])
			if err != nil {
				return err
			}
			if f.count < 0 || f.timeout < 0 || f.interval < 0 {
				return &codeError{codeUsage, errors.New("--count, --timeout and --interval cannot be negative")}
			}
			n, err := a.open(c.Context())
			if err != nil {
				return err
			}
			return end(c.Context(), n, a.ping(c.Context(), n, id, f.withDefaults()))
		},
	}
	a.addNodeFlags(c)
	c.Flags().BoolVar(&f.untilDirect, "until-direct", false, "end at the first answer over a direct route")
	c.Flags().IntVar(&f.count, "count", 0, "`N` answers are enough (default: no end)")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "`TIME` for all of it, such as 10s (default: no end; 30s with --until-direct)")
	c.Flags().DurationVar(&f.interval, "interval", 0, "`TIME` between an answer and the next question (default: 1s; 20ms with --until-direct)")
	return c
}

func (f pingFlags) withDefaults() pingFlags {
	if f.interval == 0 {
		f.interval = time.Second
		if f.untilDirect {
			f.interval = 20 * time.Millisecond
		}
	}
	if f.timeout == 0 && f.untilDirect {
		f.timeout = 30 * time.Second
	}
	return f
}

// ping asks until there are enough answers, and sums up however it ends.
func (a *app) ping(ctx context.Context, n control.Node, id peer.ID, f pingFlags) error {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeUp)
		defer cancel()
	}
	var got pingSummary
	err := a.pingAll(ctx, n, id, f, &got)
	if errors.Is(context.Cause(ctx), errTimeUp) {
		err = f.timeUp(got.answers)
	}
	if !a.json && got.answers > 0 {
		err = errors.Join(err, a.print(nil, "%s", got.text(a.name(id))))
	}
	return err
}

func (a *app) pingAll(ctx context.Context, n control.Node, id peer.ID, f pingFlags, got *pingSummary) error {
	for begin := time.Now(); ; {
		pong, err := n.Ping(ctx, id)
		if err != nil {
			return err
		}
		got.add(pong)
		if err := a.printPong(got.answers, pong, time.Since(begin)); err != nil {
			return err
		}
		switch {
		case f.untilDirect && pong.Route.Direct():
			return nil
		case f.count > 0 && got.answers == f.count && f.untilDirect:
			return f.timeUp(got.answers)
		case f.count > 0 && got.answers == f.count:
			return nil
		}
		select {
		case <-time.After(f.interval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var errTimeUp = errors.New("the time is up")

// timeUp is how a ping ends that has run out of time or answers.
func (f pingFlags) timeUp(answers int) error {
	switch {
	case f.untilDirect && answers > 0:
		return &codeError{codeFailed, errors.New("no direct route in time; all answers came over the relay")}
	case answers == 0:
		return &codeError{codeFailed, errors.New("no answer in time")}
	case f.count > answers:
		return &codeError{codeFailed, fmt.Errorf("%d of %d answers in time", answers, f.count)}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *app) printPong(n int, p bodkin.Pong, elapsed time.Duration) error {
	return a.print(pingAnswer{p.Route.Transport, p.Route.Endpoint, milliseconds(p.RTT), milliseconds(elapsed)},
		"answer %d by %s from %v: time=%.1f ms", n, p.Route.Transport, p.Route.Endpoint, milliseconds(p.RTT))
}

// pingSummary counts answers by route, in the order in which routes appeared.
type pingSummary struct {
	answers int
	routes  []routeSummary
}

type routeSummary struct {
	transport     string
	answers       int
	low, sum, top time.Duration
}

func (s *pingSummary) add(p bodkin.Pong) {
	s.answers++
	i := slices.IndexFunc(s.routes, func(r routeSummary) bool { return r.transport == p.Route.Transport })
	if i < 0 {
		i = len(s.routes)
		s.routes = append(s.routes, routeSummary{transport: p.Route.Transport, low: p.RTT})
	}
	r := &s.routes[i]
	r.answers, r.sum = r.answers+1, r.sum+p.RTT
	r.low, r.top = min(r.low, p.RTT), max(r.top, p.RTT)
}

func (s *pingSummary) text(name string) string {
	var out strings.Builder
	_, _ = fmt.Fprintf(&out, "--- %s: %s", name, count(s.answers, "answer"))
	for _, r := range s.routes {
		_, _ = fmt.Fprintf(&out, "\n%s by %s, min/avg/max %.1f/%.1f/%.1f ms", count(r.answers, "answer"), r.transport,
			milliseconds(r.low), milliseconds(r.sum/time.Duration(r.answers)), milliseconds(r.top))
	}
	return out.String()
}
