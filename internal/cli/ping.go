package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
direct route, and with 1 when the time is up.`,
		Example: "  bodkin ping PEER\n  bodkin ping --until-direct --timeout 10s PEER",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parsePeer(args[0])
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
			err = a.ping(c.Context(), n, id, f)
			return errors.Join(err, closeNode(n))
		},
	}
	a.addNodeFlags(c)
	c.Flags().BoolVar(&f.untilDirect, "until-direct", false, "end at the first answer over a direct route")
	c.Flags().IntVar(&f.count, "count", 0, "answers to ask for (default: no end)")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "time for all of it (default: no end; 30s with --until-direct)")
	c.Flags().DurationVar(&f.interval, "interval", 0, "time between questions (default: 1s; 20ms with --until-direct)")
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

func (a *app) ping(ctx context.Context, n control.Node, id peer.ID, f pingFlags) error {
	f = f.withDefaults()
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeUp)
		defer cancel()
	}
	begin, answers := time.Now(), 0
	for {
		pong, err := n.Ping(ctx, id)
		if err != nil {
			if errors.Is(context.Cause(ctx), errTimeUp) {
				return f.timeUp(answers)
			}
			return err
		}
		answers++
		if err := a.printPong(pong, time.Since(begin)); err != nil {
			return err
		}
		if f.untilDirect && pong.Route.Direct() || f.count > 0 && answers == f.count && !f.untilDirect {
			return nil
		}
		if f.untilDirect && f.count > 0 && answers == f.count {
			return f.timeUp(answers)
		}
		select {
		case <-time.After(f.interval):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errTimeUp) {
				return f.timeUp(answers)
			}
			return ctx.Err()
		}
	}
}

var errTimeUp = errors.New("the time is up")

// timeUp is how a ping ends that has run out of time or answers.
func (f pingFlags) timeUp(answers int) error {
	switch {
	case f.untilDirect && answers > 0:
		return &codeError{codeFailed, fmt.Errorf("no direct route in time; %d answers came over the relay", answers)}
	case answers == 0:
		return &codeError{codeFailed, errors.New("no answer in time")}
	case f.count > answers:
		return &codeError{codeFailed, fmt.Errorf("%d of %d answers in time", answers, f.count)}
	}
	return nil
}

func (a *app) printPong(p bodkin.Pong, elapsed time.Duration) error {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return a.print(pingAnswer{p.Route.Transport, p.Route.Endpoint, ms(p.RTT), ms(elapsed)},
		"answer over %s from %v: %.1f ms", p.Route.Transport, p.Route.Endpoint, ms(p.RTT))
}
