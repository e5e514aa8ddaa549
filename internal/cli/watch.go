package cli

import (
	"context"
	"fmt"
	"net/netip"
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
	Names map[string]string    `json:"names,omitempty"` // by peer
	Rates map[string]peerRates `json:"rates"`           // by peer
	Up    *daemon.Status       `json:"up,omitempty"`
}

// rate is what goes and comes, in bytes a second.
type rate struct {
	Sent     float64 `json:"sent_per_s"`
	Received float64 `json:"received_per_s"`
}

// peerRates are those of a peer, in all and by its routes, the one in use first.
type peerRates struct {
	rate
	Routes []routeRate `json:"routes"`
}

type routeRate struct {
	Transport string         `json:"transport"`
	Endpoint  netip.AddrPort `json:"endpoint"`
	rate
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

// rates compares two looks. What is new, or whose counters began anew, has nothing to
// compare with.
func rates(last, now watchLine) map[string]peerRates {
	total := func(p bodkin.PeerStatus) (t bodkin.Traffic) {
		for _, by := range p.Traffic {
			t.Sent, t.Received = t.Sent+by.Sent, t.Received+by.Received
		}
		return t
	}
	out := make(map[string]peerRates)
	seconds := now.Time.Sub(last.Time).Seconds()
	for _, p := range now.Peers {
		i := slices.IndexFunc(last.Peers, func(o bodkin.PeerStatus) bool { return o.ID == p.ID })
		if i < 0 || !last.Since.Equal(now.Since) || seconds <= 0 {
			continue
		}
		all, ok := between(total(last.Peers[i]), total(p), seconds)
		if !ok {
			continue
		}
		x := peerRates{rate: all}
		for _, r := range p.Routes {
			x.Routes = append(x.Routes, routeRate{r.Transport, r.Endpoint, routeBetween(last.Peers[i].Routes, r, seconds)})
		}
		out[p.ID.String()] = x
	}
	return out
}

// routeBetween is the rate of a route since its like of the last look; one that was
// none then began with nothing.
func routeBetween(last []bodkin.Route, now bodkin.Route, seconds float64) rate {
	var was bodkin.Traffic
	for _, r := range last {
		if r.Transport == now.Transport && r.Endpoint == now.Endpoint {
			was = bodkin.Traffic{Sent: r.Sent, Received: r.Received}
		}
	}
	out, _ := between(was, bodkin.Traffic{Sent: now.Sent, Received: now.Received}, seconds)
	return out
}

// between is false where counters began anew.
func between(was, is bodkin.Traffic, seconds float64) (rate, bool) {
	if was.Sent > is.Sent || was.Received > is.Received {
		return rate{}, false
	}
	return rate{float64(is.Sent-was.Sent) / seconds, float64(is.Received-was.Received) / seconds}, true
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
		for _, row := range a.watchRows(p, s.Rates) {
			_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
		}
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

// watchRows are the rows of a peer, one a route.
func (a *app) watchRows(p bodkin.PeerStatus, all map[string]peerRates) (rows [][]string) {
	rates, known := all[p.ID.String()]
	carries := func(r rate) (sent, received string) {
		if !known {
			return "", ""
		}
		return size(uint64(r.Sent)), size(uint64(r.Received))
	}
	for i, r := range p.Routes {
		row := []string{"", fmt.Sprintf("%s %v", r.Transport, r.Endpoint), "", "", "", ""}
		if i == 0 {
			row[0] = a.name(p.ID)
		}
		if r.RTT > 0 {
			row[2], row[3] = fmt.Sprintf("%.1f ms", milliseconds(r.RTT)), fmt.Sprintf("%.1f%%", 100*r.Loss)
		}
		if i < len(rates.Routes) {
			row[4], row[5] = carries(rates.Routes[i].rate)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		sent, received := carries(rates.rate)
		rows = append(rows, []string{a.name(p.ID), "none", "", "", sent, received})
	}
	return rows
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
