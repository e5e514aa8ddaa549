package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"bodkin"
	"bodkin/internal/control"
	"bodkin/internal/daemon"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/punch"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	var w watchFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the running node on this machine knows",
		Long: `Ask the running node with this key on this machine what it knows: how the server
sees it, its peers, the routes to them with their round trips, the traffic by
route, and for each peer both sides' NATs and what was tried to open a hole. With
--json, times are in nanoseconds, traffic is in bytes, and names has those of the
address book, by ID. Of a node that bodkin up runs it also shows who may connect, the
forwards with their connections and traffic, and what is allowed; with --json as up.
See also: bodkin why

With --watch it shows every second to where the peers' routes lead, the one in use
first, their round trips and losses, what they carry, and the latest changes with
their reasons; with --json as well, an object a line: the status, and rates, in bytes
a second, by peer and by route.`,
		Example: "  bodkin status\n  bodkin status --json\n  bodkin status --watch",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if w.interval <= 0 {
				return &codeError{codeUsage, errors.New("--interval is longer than nothing")}
			}
			path, err := keyFile(a.node.key, "node.key")
			if err != nil {
				return err
			}
			key, err := peer.LoadKey(path)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("no node is running on this machine: there is no key %s yet; start one with `bodkin up` or `bodkin listen`, or name its key with --key", path)
			}
			if err != nil {
				return err
			}
			n, err := control.Connect(c.Context(), key.ID())
			if err != nil {
				return fmt.Errorf("no node with the ID %s is running on this machine (%w); start one with `bodkin up` or `bodkin listen`, or name its key with --key",
					key.ID().Short(), err)
			}
			if w.watch {
				return a.watch(c.Context(), n, w.interval)
			}
			s, err := n.Status(c.Context())
			if err != nil {
				return err
			}
			up, err := upStatus(c.Context(), n)
			if err != nil {
				return err
			}
			return a.print(statusLine{s, a.names(s), up}, "%s", a.statusText(s, up, time.Now()))
		},
	}
	a.addKeyFlag(c)
	c.Flags().BoolVar(&w.watch, "watch", false, "show it again and again, as a table of the peers")
	c.Flags().DurationVar(&w.interval, "interval", time.Second, "`TIME` between two looks of --watch")
	return c
}

// statusLine is what `bodkin status --json` prints.
type statusLine struct {
	bodkin.Status
	Names map[string]string `json:"names,omitempty"` // of peers, by ID
	Up    *daemon.Status    `json:"up,omitempty"`
}

// names are those of the peers that have one.
func (a *app) names(s bodkin.Status) map[string]string {
	out := make(map[string]string)
	for _, p := range s.Peers {
		if name := a.petname(p.ID); name != "" {
			out[p.ID.String()] = name
		}
	}
	return out
}

func (a *app) statusText(s bodkin.Status, up *daemon.Status, now time.Time) string {
	var b lines
	line := b.add
	state := "registered"
	if !s.Registered {
		state = "not registered"
	}
	if s.Displaced {
		state += "; another process accepts connections"
	}
	line("peer ID", "%s", s.ID)
	if s.Registered && s.ServerVia != "" && s.ServerVia != bodkin.ViaUDP {
		state += " over " + strings.ToUpper(s.ServerVia)
	}
	line("server", "%s (%s)", s.Server, state)
	line("seen from inside", "%s", endpoints(s.Private))
	line("seen from outside", "%s", endpoints(s.Observed))
	line("services", "%s", list(s.Services))
	line("running for", "%s", span(now.Sub(s.Since)))
	a.addUp(&b, up)
	for _, p := range s.Peers {
		b.blank()
		line("peer", "%s", a.named(p.ID))
		for i, r := range p.Routes {
			line("  route", "%s", routeText(r, i == 0))
		}
		for _, transport := range slices.Sorted(maps.Keys(p.Traffic)) {
			t := p.Traffic[transport]
			line("  traffic", "%s: %s sent, %s received", transport, size(t.Sent), size(t.Received))
		}
		if p.Attempt != nil {
			line("  our NAT", "%s", natText(p.Attempt.NAT))
			line("  their NAT", "%s", natText(p.Attempt.PeerNAT))
			line("  punching", "%s", tacticsText(*p.Attempt))
		}
	}
	return b.text()
}

// natText is a NAT in a line, of what was measured.
func natText(n bodkin.NAT) string {
	if n.Mapping == nat.Unknown.String() {
		return "not measured"
	}
	if n.Mapping == nat.None.String() {
		return "none; filtering " + n.Filtering
	}
	return fmt.Sprintf("mapping %s, filtering %s, ports %s", n.Mapping, n.Filtering, n.Allocation)
}

// tacticsText is what came of an attempt, in a line.
func tacticsText(a bodkin.Attempt) string {
	var out []string
	for _, t := range a.Tactics {
		if t.Probes == 0 && t.Result != string(punch.Postponed) {
			continue // it left the race to others
		}
		out = append(out, fmt.Sprintf("%s: %s, %s", t.Name, t.Result, count(t.Probes, "probe")))
	}
	text := strings.Join(out, "; ")
	if a.Sockets > 0 {
		text += "; " + count(a.Sockets, "more socket")
	}
	return text
}

func routeText(r bodkin.Route, inUse bool) string {
	out := fmt.Sprintf("%s %v", r.Transport, r.Endpoint)
	if r.RTT > 0 {
		out += fmt.Sprintf(", %.1f ms", milliseconds(r.RTT))
	}
	if r.Loss >= 0.001 {
		out += fmt.Sprintf(", %.1f%% lost", 100*r.Loss)
	}
	if r.Sent+r.Received > 0 {
		out += fmt.Sprintf(", %s sent, %s received", size(r.Sent), size(r.Received))
	}
	if inUse {
		out += ", in use"
	}
	return out
}
