package cli

import (
	"strings"

	"bodkin"

	"github.com/spf13/cobra"
)

func (a *app) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why PEER",
		Short: "Say why a peer is reached directly, over the relay, or not at all",
		Long: `Say by which way a peer is reached and why: what was tried to open a hole and what
came of it, which side and what there is in the way, and what would help. If there
is no connection with the peer, it makes one; if an attempt is under way, it waits
for its end, some ten seconds.

A node knows its own side and what the peer says of itself. What it says of the
rest is the most probable, and on the other side ` + "`bodkin why`" + ` may know more. See
also: bodkin check

With --json it prints one object: version (1), way (direct, relay or none), blame
(pairs of a side: ours, theirs, both, between or server, and a layer: udp,
filtering, mapping, early, hairpin, family, policy, offline, key, name or
unmeasured; the most probable first), certain, pending (it is too early to tell),
reason and help in words, route, attempt as in status, peer, and its name if it has
one.

It ends with 0 if the peer is reached, by whatever way, with 3 if the server is
not, and with 4 if the peer is not.`,
		Example: "  bodkin why PEER\n  bodkin why --json PEER",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := a.peer(args[0])
			if err != nil {
				return err
			}
			n, err := a.openBy(c.Context(), begin)
			if err != nil {
				return err
			}
			e, err := n.Explain(c.Context(), id)
			if err == nil {
				err = a.print(whyLine{e, a.petname(id)}, "%s", a.whyText(e))
			}
			if err == nil && e.Way == "none" {
				err = &codeError{whyCode(e), nil}
			}
			return end(c.Context(), n, err)
		},
	}
	a.addNodeFlags(c)
	return c
}

// whyCode is the exit code for a peer that is not reached.
func whyCode(e bodkin.Explanation) int {
	if len(e.Blame) == 0 {
		return codeFailed
	}
	switch b := e.Blame[0]; {
	case b.Side == "theirs":
		return codeNotReachable
	case b.Layer == "policy":
		return codeFailed
	default:
		return codeNoServer
	}
}

// whyLine is what `bodkin why --json` prints.
type whyLine struct {
	bodkin.Explanation
	Name string `json:"name,omitempty"` // the petname
}

func (a *app) whyText(e bodkin.Explanation) string {
	var l lines
	switch e.Way {
	case "direct":
		l.add("direct", "%s", routeText(e.Route, false))
	case "relay":
		l.add("over the relay", "%v", e.Route.Endpoint)
	default:
		l.add("not reached", "%s", a.named(e.Peer))
	}
	if name := a.petname(e.Peer); name != "" && e.Way != "none" {
		l.add("peer", "%s", a.named(e.Peer))
	}
	l.wrap("why", e.Reason)
	if len(e.Blame) > 0 {
		l.add("to blame", "%s", blameText(e))
	}
	for i, h := range e.Help {
		name := ""
		if i == 0 {
			name = "would help"
		}
		l.wrap(name, "- "+h)
	}
	if e.Attempt != nil {
		l.add("our NAT", "%s", natText(e.Attempt.NAT))
		l.add("their NAT", "%s", natText(e.Attempt.PeerNAT))
		if e.Attempt.Probes > 0 {
			l.wrap("tried", tacticsText(*e.Attempt))
		}
	}
	return l.text()
}

// blameText groups the explanations by side.
func blameText(e bodkin.Explanation) string {
	names := map[string]string{
		"ours": "our side", "theirs": "their side", "both": "both sides together",
		"between": "the network between", "server": "the server",
	}
	var sides []string
	layers := make(map[string][]string)
	for _, b := range e.Blame {
		if layers[b.Side] == nil {
			sides = append(sides, b.Side)
		}
		layers[b.Side] = append(layers[b.Side], b.Layer)
	}
	var out []string
	for _, s := range sides {
		out = append(out, names[s]+" ("+strings.Join(layers[s], " or ")+")")
	}
	text := strings.Join(out, ", or ")
	if !e.Certain {
		text = "probably " + text
	}
	return text
}
