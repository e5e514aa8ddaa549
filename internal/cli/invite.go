package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bodkin"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

type inviteFlags struct {
	pairFlags
	expires time.Duration
	qr      bool
}

// inviteAnswer is what `bodkin invite --json` prints first.
type inviteAnswer struct {
	Code   string    `json:"code"`
	Until  time.Time `json:"until"`
	Server string    `json:"server"`
}

// maxExpires is what servers give at the most.
const maxExpires = 24 * time.Hour

func (a *app) inviteCommand() *cobra.Command {
	var f inviteFlags
	c := &cobra.Command{
		Use:   "invite",
		Short: "Pair with another machine by a code",
		Long: `Print a code, as 42-lantern-copper, and wait until 'bodkin join' is run with it on
another machine. Then both know each other's peer ID, and can give it a name. Tell
the code to nobody else: by telephone or in a chat that only the two of you read.

The code is good for one try. Whoever guesses the words, the server included, has
one chance in a million, and you are told that somebody tried.

Pairing lets nobody in: a peer with a name may connect where a listener says so,
with --allow NAME or --allow-known.

The code is the first line of standard output, the peer ID the second. With --json
they are two objects: code, until (when it expires) and server; peer, and name if
it was saved.`,
		Example: "  bodkin invite\n  bodkin invite --name laptop --expires 1h\n  bodkin invite --qr",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.expires < time.Second || f.expires > maxExpires {
				return &codeError{codeUsage, fmt.Errorf("--expires %v: it needs a time from 1s to 24h", f.expires)}
			}
			if err := a.checkNewName(f.name); err != nil {
				return err
			}
			n, err := a.open(c.Context())
			if err != nil {
				return err
			}
			return end(c.Context(), n, a.invite(c.Context(), n, f))
		},
	}
	a.addNodeFlags(c)
	f.add(c)
	c.Flags().DurationVar(&f.expires, "expires", bodkin.DefaultCodeLife, "`TIME` that the code is good for, up to 24h")
	c.Flags().BoolVar(&f.qr, "qr", false, "show the other machine's command as a QR code, too")
	return c
}

func (a *app) invite(ctx context.Context, n control.Node, f inviteFlags) error {
	asking, cancel := context.WithTimeoutCause(ctx, registerTime, errNoServerNow)
	defer cancel()
	i, err := n.Invite(asking, f.expires)
	if err != nil {
		return err
	}
	defer func() { _ = i.Close() }()
	if err := a.print(inviteAnswer{i.Code(), i.Until(), n.Server()}, "%s", i.Code()); err != nil {
		return err
	}
	if err := a.sayInvited(i, n.Server(), f); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go a.watchServer(watching, n)
	id, err := i.Wait(ctx)
	stop()
	if err != nil {
		return err
	}
	return a.paired(ctx, id, f.pairFlags)
}

// sayInvited says what the other side has to do.
func (a *app) sayInvited(i control.Invitation, server string, f inviteFlags) error {
	command := fmt.Sprintf("bodkin join --server %s %s", server, i.Code())
	if !a.json {
		a.say("within %s, on the other machine: %s", inWords(f.expires), command)
	}
	if f.qr {
		return a.printQR(command)
	}
	return nil
}

// errNoServerNow is why a running node could not make a code.
var errNoServerNow = errors.New("the running node cannot reach its server; `bodkin status` says more")

// serverLook is how often the server is looked at while a code waits.
const serverLook = 2 * time.Second

// watchServer says when the server goes while a code waits, and when it is back.
func (a *app) watchServer(ctx context.Context, n control.Node) {
	look := time.NewTicker(serverLook)
	defer look.Stop()
	for gone := false; ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		s, err := n.Status(ctx)
		switch {
		case err != nil || s.Registered != gone:
		case gone:
			gone = false
			a.say("the server is back, and the code is good")
		default:
			gone = true
			a.say("the server does not answer; nobody can join until it is back")
		}
	}
}

// inWords is a time for people to read out: 10 minutes.
func inWords(d time.Duration) string {
	var parts []string
	for _, u := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(d / u.size); n > 0 {
			parts = append(parts, count(n, u.name))
			d %= u.size
		}
	}
	return strings.Join(parts, " ")
}

// pairFlags are those of both invite and join.
type pairFlags struct{ name string }

func (f *pairFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "name", "", "`NAME` for the other peer in the address book (default: ask, at a terminal)")
}

// pairAnswer is what invite and join print in the end with --json.
type pairAnswer struct {
	Peer peer.ID `json:"peer"`
	Name string  `json:"name,omitempty"`
}
