package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/app/share"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

// incoming is a connection that a peer opened.
type incoming = forward.Incoming

type receiveFlags struct {
	shareFlags
	from      string
	output    string
	overwrite string
	yes       bool
}

func (a *app) receiveCommand() *cobra.Command {
	var f receiveFlags
	c := &cobra.Command{
		Use:   "receive [CODE]",
		Short: "Receive what another machine sends",
		Long: `Receive files, folders, a stream or a text that another machine sends with 'bodkin
send'. CODE is what that has printed. Without one it waits for a peer of the address
book that runs 'bodkin send --to', or for the one that --from names. It asks before
it takes anything; with --yes it takes what comes.

Files go to the current folder, or to where --output says: a folder, the name for a
single file or folder, or - for standard output. Until everything is there it is in
a folder beside the place, named like it with .part at the end: if the transfer ends
early, receive the same again, and it goes on; or delete that folder. While the
other side still sends, the same code is good for that, on this machine.

Where something of that name is already, --overwrite says what happens: ask; always
(replace files; folders are merged); never (keep files; folders are merged); rename
(what comes gets another name, as in "photos (2)"). Without a terminal to ask at, or
with --yes, it is rename.

It prints what it has received, a path a line, or a text. With --json it prints an
object an event, with event, peer and more: waiting (with reason), begun, route
(direct or relayed), progress (bytes in all, done, kept of an earlier time,
bytes_per_s, left_s), done, received (with paths, or text).`,
		Example: `  bodkin receive 42-lantern-copper
  bodkin receive
  bodkin receive --from laptop --yes --output Downloads
  bodkin receive --from laptop -o - | tar x`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeCode,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(share.Rules(), f.overwrite) && f.overwrite != "" {
				return &codeError{codeUsage, fmt.Errorf("--overwrite %q: it needs one of %s", f.overwrite, strings.Join(share.Rules(), ", "))}
			}
			if code := strings.Join(args, " "); code != "" {
				if f.from != "" {
					return &codeError{codeUsage, errors.New("a code says whom to receive from; leave --from out")}
				}
				if err := bodkin.CheckCode(code); err != nil {
					return &codeError{codeUsage, err}
				}
				return a.receiveByCode(c.Context(), f, code)
			}
			from, err := a.senders(f)
			if err != nil {
				return err
			}
			return a.receive(c.Context(), f, from)
		},
	}
	a.addNodeFlags(c)
	f.add(c)
	c.Flags().StringVar(&f.from, "from", "", "`PEER` to receive from, and from nobody else")
	c.Flags().StringVarP(&f.output, "output", "o", "", "`PLACE` for what is received: a folder, a name, or - for standard output (default: the current folder)")
	c.Flags().StringVar(&f.overwrite, "overwrite", "", "`RULE` where something is already: ask, always, never or rename (default: ask at a terminal, else rename)")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "take what comes without asking")
	return c
}

// senders are those who may send: nil for everybody, who is asked about.
func (a *app) senders(f receiveFlags) ([]peer.ID, error) {
	if f.from != "" {
		id, err := a.peer(f.from)
		return []peer.ID{id}, err
	}
	c, err := a.file()
	if err != nil {
		return nil, err
	}
	if len(c.Peers) > 0 {
		return a.allowed(allowFlags{known: true})
	}
	if f.yes || !isTerminal(a.in) {
		return nil, &codeError{codeUsage, errors.New(
			"anybody could send anything: name the peer with --from, or add it to the address book with `bodkin peer add NAME ID`")}
	}
	return nil, nil
}

// receiveTeller keeps standard output for what is received, if that goes there.
func (a *app) receiveTeller(f receiveFlags) *shareTeller {
	events := a.out
	if f.output == "-" {
		events = a.err
	}
	return a.newShareTeller(verbReceived, func(e shareEvent) { _ = printJSON(events, e) })
}

// receiveByCode receives from whoever made a code.
func (a *app) receiveByCode(ctx context.Context, f receiveFlags, code string) error {
	tell := a.receiveTeller(f)
	options, err := f.options(tell)
	if err != nil {
		return err
	}
	n, err := a.open(ctx)
	if err != nil {
		return err
	}
	node := shareNode{n}
	known := a.knownCode(n.Server(), code)
	id := known.sender()
	if id.IsZero() {
		if id, err = n.Join(ctx, code); err != nil {
			return end(ctx, n, err)
		}
		known.keep(id)
	}
	tell.run(ctx, node)
	out, err := a.receiver(f, options, node, tell).From(ctx, id)
	tell.end()
	if err == nil {
		known.forget()
	}
	return part(ctx, n, a.received(out, f, tell, err), false)
}

// receive receives from a peer that is known.
func (a *app) receive(ctx context.Context, f receiveFlags, from []peer.ID) error {
	tell := a.receiveTeller(f)
	options, err := f.options(tell)
	if err != nil {
		return err
	}
	n, stop, err := a.listening(ctx, from)
	if err != nil {
		return err
	}
	node := shareNode{n}
	l, err := node.Listen(ctx, share.Service)
	if err != nil {
		stop(err)
		return end(ctx, n, err)
	}
	a.greetSender(n.ID(), from)
	r := a.receiver(f, options, node, tell)
	tell.run(ctx, node)
	out, err := r.Serve(ctx, l, func(id peer.ID) bool { return from == nil || slices.Contains(from, id) })
	_ = l.Close()
	tell.end()
	err = a.received(out, f, tell, err)
	stop(err)
	return part(ctx, n, err, false)
}

// greetSender says how the other side reaches us.
func (a *app) greetSender(id peer.ID, from []peer.ID) {
	if a.json {
		_ = printJSON(a.err, greeting{ID: id, Service: share.Service, Open: from == nil})
		return
	}
	who := "anybody who knows this ID, and you are asked; name one with --from to change that"
	if from != nil {
		var names []string
		for _, p := range from {
			names = append(names, a.name(p))
		}
		who = strings.Join(names, ", ")
	}
	a.say("waiting for files from %s", who)
	a.say("the other side sends with: bodkin send --to %s PATH...", id)
}

// receiver is what the flags describe.
func (a *app) receiver(f receiveFlags, o share.Options, n share.Node, tell *shareTeller) *share.Receiver {
	r := &share.Receiver{Options: o, Node: n, Place: f.output, Rule: share.Rule(f.overwrite)}
	if f.output == "-" {
		r.Place, r.Out = "", a.out
	}
	person := isTerminal(a.in)
	if r.Rule == "" {
		r.Rule = share.RuleRename
		if person && !f.yes {
			r.Rule = share.RuleAsk
		}
	}
	ask := &asker{in: bufio.NewReader(a.in), tell: tell}
	r.Ask = func(ctx context.Context, name string, folder bool) (share.Rule, error) {
		if !person {
			return "", fmt.Errorf("%s is here already, and there is no terminal to ask at; say what to do with --overwrite", share.Printable(name))
		}
		return ask.rule(ctx, name, folder)
	}
	if !f.yes {
		r.Confirm = func(ctx context.Context, in share.Incoming) (bool, error) {
			if !person {
				return false, errors.New("nobody can be asked whether it is wanted, without a terminal; take it with --yes")
			}
			return ask.confirm(ctx, a, in)
		}
	}
	return r
}

// asker asks a person.
type asker struct {
	mu   sync.Mutex
	in   *bufio.Reader
	tell *shareTeller
}

// answer asks a question and returns what was typed. A Read of standard input cannot be
// broken off: one that is under way when ctx ends ends with the process.
func (k *asker) answer(ctx context.Context, question string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell.ask(question)
	type typed struct {
		line string
		err  error
	}
	got := make(chan typed, 1)
	go func() {
		line, err := k.in.ReadString('\n')
		got <- typed{strings.ToLower(strings.TrimSpace(line)), err}
	}()
	select {
	case t := <-got:
		if t.err != nil && (t.line == "" || !errors.Is(t.err, io.EOF)) {
			return "", fmt.Errorf("no answer: %w", t.err)
		}
		return t.line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (k *asker) confirm(ctx context.Context, a *app, in share.Incoming) (bool, error) {
	what := sourceWords(in.Name, in.Roots, in.Files, in.Bytes)
	switch {
	case in.Text:
		what = "a text of " + size(uint64(in.Bytes))
	case in.Stream:
		what = "a stream"
	}
	for {
		t, err := k.answer(ctx, fmt.Sprintf("receive %s from %s? [Y/n] ", what, a.name(in.Peer)))
		switch {
		case err != nil:
			return false, err
		case t == "" || t == "y" || t == "yes":
			return true, nil
		case t == "n" || t == "no":
			return false, nil
		}
	}
}

func (k *asker) rule(ctx context.Context, name string, folder bool) (share.Rule, error) {
	overwrite, never := "[o]verwrite it", "[k]eep it"
	if folder {
		overwrite, never = "[o]verwrite files in it", "[k]eep files in it"
	}
	for {
		t, err := k.answer(ctx, fmt.Sprintf("%s is here already: %s, %s, or [R]ename what comes? ", share.Printable(name), overwrite, never))
		if err != nil {
			return "", err
		}
		switch t {
		case "o", "overwrite":
			return share.RuleAlways, nil
		case "k", "keep":
			return share.RuleNever, nil
		case "", "r", "rename":
			return share.RuleRename, nil
		}
	}
}

// received prints what has come, or what is kept of it after an error.
func (a *app) received(out share.Result, f receiveFlags, tell *shareTeller, err error) error {
	if err != nil {
		a.kept(err, tell)
		return err
	}
	var paths []string
	for _, name := range out.Placed {
		paths = append(paths, filepath.Join(out.Dir, name))
	}
	if a.json {
		e := shareEvent{Event: "received", Peer: out.Peer, Paths: paths, Changed: out.Notes}
		if out.IsText && f.output == "" {
			e.Text = string(out.Text)
		}
		tell.json(e)
		return nil
	}
	for _, note := range out.Notes {
		a.say("note: %s", note)
	}
	if out.IsText && f.output == "" {
		_, err := fmt.Fprintln(a.out, a.shownText(string(out.Text)))
		return err
	}
	for _, p := range paths {
		if _, err := fmt.Fprintln(a.out, share.Printable(p)); err != nil {
			return err
		}
	}
	return nil
}

// shownText is a text without what would command a terminal, if that shows it.
func (a *app) shownText(text string) string {
	if !isTerminal(a.out) {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		parts := strings.Split(l, "\t")
		for j, p := range parts {
			parts[j] = share.Printable(p)
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}

// kept says where an unfinished transfer is.
func (a *app) kept(err error, tell *shareTeller) {
	folder, ok := share.Kept(err)
	if !ok {
		return
	}
	if _, bad := os.Stat(folder); bad != nil {
		return
	}
	if a.json {
		tell.json(shareEvent{Event: "kept", KeptHere: folder})
		return
	}
	a.say("what has come is kept in %s: receive the same again to go on, or delete it", share.Printable(folder))
}
