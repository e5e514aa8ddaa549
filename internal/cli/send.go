package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bodkin"
	"bodkin/internal/app/share"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

type sendFlags struct {
	shareFlags
	to        string
	text      string
	name      string
	receivers int
	expires   time.Duration
	qr        bool
	limit     string
}

// options are those of the flags.
func (f *sendFlags) options(tell *shareTeller) (share.Options, error) {
	o, err := f.shareFlags.options(tell)
	if err != nil {
		return o, err
	}
	rate, err := parseRate(f.limit)
	if err != nil {
		return o, &codeError{codeUsage, fmt.Errorf("--limit: %w", err)}
	}
	if o.Rate = max(0, rate/8); rate > 0 && o.Rate == 0 {
		o.Rate = 1
	}
	return o, nil
}

func (a *app) sendCommand() *cobra.Command {
	var f sendFlags
	c := &cobra.Command{
		Use:   "send {PATH... | -}",
		Short: "Send files, folders, a stream or a text",
		Long: `Send files and folders, with their names, permissions and times, to another machine
that runs 'bodkin receive'. - sends standard input, --text a text.

It prints a code, as 42-lantern-copper, and waits until 'bodkin receive' is run with it
on the other machine. A code is for one receiver and good for one try: tell it to
nobody else. With --to the other side is a peer that is known already, and waits with
'bodkin receive'; there is no code then. Who is not there yet, or goes away, is waited
for.

Data is checked with BLAKE3 as it arrives. If either side ends before the end, by a
signal or a crash, send the same again: what has arrived is not sent twice. Files
that change while they are sent are reported, and kept apart at the other side.
Links that lead out of what is sent are left out.

The codes are all that stands on standard output. With --json it prints an object an
event, with event, peer and more: code (with until, and server), waiting (with
reason), begun, route (direct or relayed), progress (bytes in all, done, kept of an
earlier time, sent, bytes_per_s, left_s), done, failed.`,
		Example: `  bodkin send photos notes.txt
  bodkin send --receivers 3 --expires 1h slides.pdf
  bodkin send --to laptop photos
  tar c photos | bodkin send --to laptop -
  bodkin send --to laptop --text "the door code is 4711"`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			text := c.Flags().Changed("text")
			if err := f.check(args, text); err != nil {
				return &codeError{codeUsage, fmt.Errorf("%w; see `bodkin send --help`", err)}
			}
			var id peer.ID
			if f.to != "" {
				var err error
				if id, err = a.peer(f.to); err != nil {
					return err
				}
			}
			src, err := a.source(f, args, text)
			if err != nil {
				return err
			}
			if f.to != "" {
				return a.send(c.Context(), f, id, src)
			}
			return a.offer(c.Context(), f, src)
		},
	}
	a.addNodeFlags(c)
	f.add(c)
	c.Flags().StringVar(&f.to, "to", "", "`PEER` to send to, without a code")
	c.Flags().IntVar(&f.receivers, "receivers", 1, "`N` machines may receive it, each with a code of its own")
	c.Flags().DurationVar(&f.expires, "expires", bodkin.DefaultCodeLife, "`TIME` that a code is good for, up to 24h")
	c.Flags().StringVar(&f.limit, "limit", "0", "`RATE` at the most to each receiver, such as 20M (bit/s, with k, M or G); 0: no limit")
	c.Flags().BoolVar(&f.qr, "qr", false, "show the other machine's command as a QR code, too")
	c.Flags().StringVar(&f.text, "text", "", "`TEXT` to send, in place of files")
	c.Flags().StringVar(&f.name, "name", "stdin", "`NAME` that a stream has at the other side")
	return c
}

func (f sendFlags) check(args []string, text bool) error {
	switch {
	case text && len(args) > 0:
		return errors.New("a text is sent alone, without files")
	case !text && len(args) == 0:
		return errors.New("nothing to send: name files or folders, - for standard input, or --text")
	case len(args) > 1 && slices.Contains(args, "-"):
		return errors.New("standard input is sent alone, without files")
	case f.receivers < 1 || f.receivers > maxReceivers:
		return fmt.Errorf("--receivers %d: it needs a number from 1 to %d", f.receivers, maxReceivers)
	case f.receivers > 1 && f.to != "":
		return errors.New("--receivers is for codes; --to names one peer")
	case f.receivers > 1 && len(args) == 1 && args[0] == "-":
		return errors.New("standard input can be sent once, to one receiver")
	case f.expires < time.Second || f.expires > maxExpires:
		return fmt.Errorf("--expires %v: it needs a time from 1s to 24h", f.expires)
	}
	return nil
}

// maxReceivers is how many codes there may be at once.
const maxReceivers = 16

// source is what the command line names.
func (a *app) source(f sendFlags, args []string, text bool) (*share.Source, error) {
	switch {
	case text:
		return share.Text(f.text)
	case args[0] == "-":
		return share.Stream(a.in, f.name)
	}
	key, err := a.loadKey()
	if err != nil {
		return nil, err
	}
	src, err := share.Paths(key, args...)
	if err != nil {
		return nil, err
	}
	a.leftOut(src.LeftOut)
	return src, nil
}

// leftOutShown is how many things that are not sent are named.
const leftOutShown = 5

func (a *app) leftOut(what []string) {
	if a.json && len(what) > 0 {
		_ = a.print(shareEvent{Event: "left-out", LeftOut: what}, "")
		return
	}
	for i, text := range what {
		if i == leftOutShown {
			a.say("and %d more are not sent", len(what)-i)
			return
		}
		a.say("not sent: %s", text)
	}
}

// send sends to a peer that is known.
func (a *app) send(ctx context.Context, f sendFlags, id peer.ID, src *share.Source) error {
	tell := a.newShareTeller(verbSent, func(e shareEvent) { _ = a.print(e, "") })
	options, err := f.options(tell)
	if err != nil {
		return err
	}
	n, err := a.open(ctx)
	if err != nil {
		return err
	}
	node := shareNode{n}
	tell.run(ctx, node)
	err = (&share.Sender{Options: options, Node: node, Source: src}).To(ctx, id)
	tell.end()
	return part(ctx, n, err, err == nil)
}

// sourceWords are what is sent, for people: photos (12 files, 3.4 MB).
func sourceWords(name string, roots, files int, bytes int64) string {
	var more string
	if roots > 1 {
		more = fmt.Sprintf(" and %d more", roots-1)
	}
	return strings.TrimSpace(fmt.Sprintf("%s%s (%s, %s)", share.Printable(name), more, count(files, "file"), size(uint64(bytes))))
}
