package cli

import (
	"context"
	"errors"
	"fmt"

	"bodkin/internal/control"
	"bodkin/internal/daemon"
	"bodkin/peer"
)

// upStatus is what a node does that bodkin up runs; nil for others.
func upStatus(ctx context.Context, n control.Node) (*daemon.Status, error) {
	var s daemon.Status
	err := control.Report(ctx, n, &s)
	if errors.Is(err, control.ErrNoReport) {
		return nil, nil
	}
	return &s, err
}

// addUp adds what bodkin up runs.
func (a *app) addUp(b *lines, s *daemon.Status) {
	if s == nil {
		return
	}
	var names []string
	for _, id := range s.Peers {
		names = append(names, a.name(id))
	}
	b.add("may connect", "%s", list(names))
	for _, f := range s.Forwards {
		b.add("forward", "%s", a.forwardText(f))
	}
	for _, r := range s.Allows {
		b.add("allowed", "%s", a.allowText(r))
	}
}

// forwardText is a forward in a line.
func (a *app) forwardText(f daemon.ForwardStatus) string {
	text := fmt.Sprintf("%s to %s of %s", f.Listen, f.To, a.name(f.Peer))
	if f.Reverse {
		text = fmt.Sprintf("%s of %s to %s here", f.Listen, a.name(f.Peer), f.To)
	}
	text += ": " + string(f.State)
	if f.Reason != "" {
		text += " (" + f.Reason + ")"
	}
	if f.Total > 0 {
		text += fmt.Sprintf("; %s, %d open; %s sent, %s received", count(int(f.Total), "connection"), f.Open, size(f.Sent), size(f.Received))
	}
	return text
}

// allowText is an allowance in a line.
func (a *app) allowText(r daemon.AllowStatus) string {
	who, what := "whoever may connect", "reach"
	if r.Peer != (peer.ID{}) {
		who = a.name(r.Peer)
	}
	if r.Reverse {
		what = "have us listen on"
	}
	text := fmt.Sprintf("%s may %s %s", who, what, r.To)
	if r.Used > 0 {
		text += "; used for " + count(int(r.Used), "connection")
	}
	return text
}
