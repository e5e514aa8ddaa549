package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"bodkin"
	"bodkin/internal/control"
	"bodkin/internal/daemon"
)

// watchFlags are those of `bodkin status --watch`.
type watchFlags struct {
	watch    bool
	interval time.Duration
}

// watchLine is a line of `bodkin status --watch --json`.
type watchLine struct {
	Time time.Time `json:"time"`
	bodkin.Status
	Names map[string]string `json:"names,omitempty"` // by peer
	Rates map[string]rate   `json:"rates"`           // by peer
	Up    *daemon.Status    `json:"up,omitempty"`
}

// rate is what went to and came from a peer, in bytes a second.
type rate struct {
	Sent     float64 `json:"sent_per_s"`
	Received float64 `json:"received_per_s"`
}

const (
	// shownChanges is how many changes are shown, the latest of all peers.
	shownChanges = 10
	// clearScreen moves a terminal's cursor home and clears what is below.
	clearScreen = "\x1b[H\x1b[J"
)

// watch shows what the node knows until it ends, or ctx does.
func (a *app) watch(ctx context.Context, n control.Node, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last watchLine
	for {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		up, err := upStatus(ctx, n)
		if err != nil {
			return err
		}
		now := watchLine{Time: time.Now(), Status: s, Names: a.names(s), Up: up}
		now.Rates = rates(last, now)
		before := ""
		if isTerminal(a.out) {
			before = clearScreen
		}
		if err := a.print(now, "%s%s", before, a.watchText(now)); err != nil {
			return err
		}
		last = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func isTerminal(out any) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// rates compares two looks. A peer that is new, or whose counters began anew, has
// nothing to compare with.
func rates(last, now watchLine) map[string]rate {
	total := func(p bodkin.PeerStatus) (t bodkin.Traffic) {
		for _, by := range p.Traffic {
			t.Sent, t.Received = t.Sent+by.Sent, t.Received+by.Received
		}
		return t
	}
	out := make(map[string]rate)
	seconds := now.Time.Sub(last.Time).Seconds()
	for _, p := range now.Peers {
		i := slices.IndexFunc(last.Peers, func(o bodkin.PeerStatus) bool { return o.ID == p.ID })
		if i < 0 || !last.Since.Equal(now.Since) || seconds <= 0 {
			continue
		}
		was, is := total(last.Peers[i]), total(p)
		if was.Sent <= is.Sent && was.Received <= is.Received {
			out[p.ID.String()] = rate{float64(is.Sent-was.Sent) / seconds, float64(is.Received-was.Received) / seconds}
		}
	}
	return out
}

// watchText is a table of the peers, and the latest changes.
func (a *app) watchText(s watchLine) string {
	var b strings.Builder
	state := "registered at"
	if !s.Registered {
		state = "not registered at"
	}
	_, _ = fmt.Fprintf(&b, "%s  %s, %s %s\n\n", clock(s.Time), s.ID.Short(), state, s.Server)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "peer\troute\tround trip\tloss\tsent/s\treceived/s")
	for _, p := range s.Peers {
		_, _ = fmt.Fprintln(w, strings.Join(a.watchRow(p, s.Rates), "\t"))
	}
	_ = w.Flush()
	if s.Up != nil && len(s.Up.Forwards) > 0 {
		b.WriteByte('\n')
		for _, f := range s.Up.Forwards {
			b.WriteString(a.forwardText(f) + "\n")
		}
	}
	if changes := latestChanges(s.Peers); len(changes) > 0 {
		b.WriteByte('\n')
		for _, e := range changes {
			b.WriteString(a.changeText(e))
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (a *app) watchRow(p bodkin.PeerStatus, all map[string]rate) []string {
	row := []string{a.name(p.ID), "none", "", "", "", ""}
	if len(p.Routes) > 0 {
		r := p.Routes[0]
		row[1] = fmt.Sprintf("%s %v", r.Transport, r.Endpoint)
		if r.RTT > 0 {
			row[2], row[3] = fmt.Sprintf("%.1f ms", milliseconds(r.RTT)), fmt.Sprintf("%.1f%%", 100*r.Loss)
		}
	}
	if x, ok := all[p.ID.String()]; ok {
		row[4], row[5] = size(uint64(x.Sent)), size(uint64(x.Received))
	}
	return row
}

func latestChanges(peers []bodkin.PeerStatus) (all []bodkin.Event) {
	for _, p := range peers {
		all = append(all, p.Changes...)
	}
	slices.SortStableFunc(all, func(a, b bodkin.Event) int { return a.Time.Compare(b.Time) })
	return all[max(0, len(all)-shownChanges):]
}

func (a *app) changeText(e bodkin.Event) string {
	what := map[bodkin.EventKind]string{
		bodkin.EventRouteConfirmed: "found", bodkin.EventRouteLost: "lost", bodkin.EventSwitched: "now takes",
	}[e.Kind]
	text := fmt.Sprintf("%s  %s  %s %s %v", clock(e.Time), a.name(e.Peer), what, e.Route.Transport, e.Route.Endpoint)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }
