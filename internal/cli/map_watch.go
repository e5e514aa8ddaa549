package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bodkin/portmap"

	"github.com/spf13/cobra"
)

func (a *app) mapWatchCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use:   "watch udp|tcp PORT [udp|tcp PORT]...",
		Short: "Keep ports mapped for as long as it runs",
		Long: `Ask the router for ports and keep them: through renewals, reboots of the router and
new addresses. What happens is printed, a line each. When it is told to end it
deletes the mappings and ends with 0.

With --json it prints an object for each thing that happens: event (found, granted,
renewed, refused, lost, rebooted, checked, deleted), time, protocol, gateway, and
grant, check or error.`,
		Example: "  bodkin map watch udp 27015 tcp 27015\n  bodkin map watch --ipv6 udp 27015",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args)%2 != 0 {
				return errors.New("it needs udp or tcp and a port, once or more")
			}
			return nil
		},
		ValidArgsFunction: mapArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 2 && (f.to != "" || f.external != 0) {
				return &codeError{codeUsage, errors.New("--to and --external go with one port")}
			}
			config, err := f.config()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			var requests []portmap.Request
			for i := 0; i < len(args); i += 2 {
				r, err := f.request(c.Context(), args[i], args[i+1])
				if err != nil {
					return &codeError{codeUsage, err}
				}
				if err := known(config, r.Internal.Addr()); err != nil {
					return err
				}
				requests = append(requests, r)
			}
			check, err := a.checker(c.Context())
			if err != nil {
				return err
			}
			return a.mapWatch(c.Context(), f, config, requests, check)
		},
	}
	f.addRequest(c, watchLease)
	f.addRouter(c)
	a.addCheckFlag(c)
	return c
}

// happened is a line of `bodkin map watch --json`.
type happened struct {
	Event    portmap.EventKind `json:"event"`
	Time     time.Time         `json:"time"`
	Protocol portmap.Protocol  `json:"protocol,omitempty"`
	Gateway  string            `json:"gateway,omitempty"`
	External string            `json:"external,omitempty"`
	Grant    *portmap.Grant    `json:"grant,omitempty"`
	Error    string            `json:"error,omitempty"`
	*checked
}

// mapWatch keeps mappings until ctx ends.
func (a *app) mapWatch(ctx context.Context, f mapFlags, config portmap.Config, requests []portmap.Request, check *portCheck) error {
	lines, quit := make(chan happened, 100), make(chan struct{})
	say := func(h happened) {
		select {
		case lines <- h:
		case <-quit:
		}
	}
	config.Observe = func(e portmap.Event) { say(asHappened(e)) }
	var client *portmap.Client
	started := make(chan struct{})
	config.Check = func(ctx context.Context, g portmap.Grant) portmap.Verdict {
		<-started
		c := check.grant(ctx, client, g)
		say(happened{Event: portmap.EventChecked, Time: time.Now(), Protocol: g.Protocol, Gateway: g.Gateway.String(), Grant: &g, checked: &c})
		return "" // and Client has nothing to tell of it
	}
	kept, err := openTickets()
	if err != nil {
		return err
	}
	client = portmap.Start(ctx, config)
	close(started)
	ended := make(chan error, 1)
	defer func() {
		close(quit)
		_ = client.Close()
	}()
	var mappings []*portmap.Mapping
	for _, r := range requests {
		r.Nonce = kept.nonce(r)
		m, err := client.Map(r)
		if err != nil {
			return &codeError{codeUsage, err}
		}
		mappings = append(mappings, m)
	}
	context.AfterFunc(ctx, func() { ended <- client.Close() })
	return a.follow(lines, ended, time.After(f.timeout), func() {
		for i, m := range mappings {
			if len(m.Grants()) == 0 {
				a.say("bodkin: %v; still trying", mapFailure(requests[i], m.Err()))
			}
		}
	})
}

// follow prints what happens, and once says what is missing, until all is given
// back.
func (a *app) follow(lines <-chan happened, ended <-chan error, late <-chan time.Time, missing func()) error {
	for {
		select {
		case h := <-lines:
			if err := a.printHappened(h); err != nil {
				return err
			}
		case <-late:
			missing()
		case err := <-ended:
			for len(lines) > 0 { // nobody adds to them any more
				err = errors.Join(err, a.printHappened(<-lines))
			}
			return err
		}
	}
}

func (a *app) printHappened(h happened) error {
	text := h.text()
	if text == "" && !a.json {
		return nil
	}
	return a.print(h, "%s", text)
}

func asHappened(e portmap.Event) happened {
	h := happened{Event: e.Kind, Time: e.Time, Protocol: e.Protocol}
	if e.Gateway.IsValid() {
		h.Gateway = e.Gateway.String()
	}
	if e.External.IsValid() {
		h.External = e.External.String()
	}
	if e.Grant.Internal.IsValid() {
		h.Grant = &e.Grant
	}
	if e.Err != nil {
		h.Error = e.Err.Error()
	}
	return h
}

// text is empty for what people need not see.
func (h happened) text() string {
	switch h.Event {
	case portmap.EventGranted:
		g := *h.Grant
		text := fmt.Sprintf("granted %s %v -> %v by %v, by %s%s, for %s", g.Transport, g.External, g.Internal, g.Gateway, g.Protocol, pinholeText(g), leaseText(g, ""))
		if g.DoubleNAT() {
			text += "\n  " + doubleNAT(g.External.Addr())
		}
		return text
	case portmap.EventLost:
		return fmt.Sprintf("lost %s %v: %s", h.Grant.Transport, h.Grant.External, h.Error)
	case portmap.EventRefused:
		return "refused: " + h.Error
	case portmap.EventRebooted:
		return fmt.Sprintf("the router %s rebooted, or has another address; asking again", h.Gateway)
	case portmap.EventChecked:
		return fmt.Sprintf("%s %v from outside: %s", h.Grant.Transport, h.Grant.External, h.checked)
	case portmap.EventDeleted:
		return fmt.Sprintf("gave back %s %v", h.Grant.Transport, h.Grant.External)
	case portmap.EventFound, portmap.EventRenewed:
	}
	return ""
}
