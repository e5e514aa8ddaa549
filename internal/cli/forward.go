package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

type forwardFlags struct{ reverse bool }

func (a *app) forwardCommand() *cobra.Command {
	var f forwardFlags
	c := &cobra.Command{
		Use:   "forward {[ADDRESS:]PORT PEER [HOST:]PORT[/udp]}...",
		Short: "Connect a port here with one that a peer reaches",
		Long: `Listen on a port of this machine, and connect whoever connects to it with a port
that a peer reaches: of its own machine, or of another one in its network. /udp is
for UDP; each source has a port of its own at the other end then, so that a game
server sees players apart. Three words make one forward, and there can be any number.

Without ADDRESS only programs on this machine can connect; * is for everybody. Without
HOST it is the peer's own machine. unix:PATH in the place of either is a Unix socket.
With - in the place of the port here, standard input and output are connected, once:

  ssh -o ProxyCommand='bodkin forward - PEER localhost:22' user@home

With --reverse it is the other way round: the peer listens, and its clients are
connected with what this machine reaches.

The peer has to allow it, with 'bodkin serve-port' or in its configuration. Forwards
last until they are interrupted, also while the peer is away: each new connection
tries to reach it again.

What happens is told on standard error; with --json as objects on standard output,
with event, which is listening, ready, unreachable, refused or missed, and peer,
listen, to, reverse and reason.`,
		Example: `  bodkin forward 8080 PEER 80
  bodkin forward 27015 PEER 27015/udp 5432 PEER db.lan:5432
  bodkin forward --reverse 8080 PEER localhost:3000`,
		Args: forwardArgs,
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args)%3 == 1 {
				return a.bookNames(c, nil, typed)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			all, err := a.forwards(args, f)
			if err != nil {
				return err
			}
			open, err := a.open(c.Context())
			if err != nil {
				return err
			}
			n := &lasting{Node: open, a: a}
			if all[0].Listen.Network == forward.Stdio {
				return end(c.Context(), n, forward.Connect(c.Context(), n, all[0].Peer, all[0].To, a.streams()))
			}
			return a.finish(c.Context(), n, a.forward(c.Context(), n, all))
		},
	}
	a.addNodeFlags(c)
	c.Flags().BoolVar(&f.reverse, "reverse", false, "the peer listens, and this machine connects to the target")
	return c
}

func forwardArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 || len(args)%3 != 0 {
		return fmt.Errorf("a forward has three words, port, peer and target, and there are %d", len(args))
	}
	return nil
}

// forwards reads the words of the command line.
func (a *app) forwards(args []string, f forwardFlags) (all []forward.Forward, err error) {
	for w := args; len(w) > 0; w = w[3:] {
		one := forward.Forward{Reverse: f.reverse}
		if one.Listen, one.To, err = forward.Parse(w[0], w[2]); err != nil {
			return nil, &codeError{codeUsage, err}
		}
		if one.Peer, err = a.peer(w[1]); err != nil {
			return nil, err
		}
		here := &one.Listen
		if one.Reverse {
			here = &one.To
		}
		if *here, err = here.Absolute(); err != nil {
			return nil, err
		}
		if err := one.Check(); err != nil {
			return nil, &codeError{codeUsage, err}
		}
		all = append(all, one)
	}
	if len(all) > 1 {
		for _, one := range all {
			if one.Listen.Network == forward.Stdio {
				return nil, &codeError{codeUsage, errors.New("standard input and output are for one forward alone")}
			}
		}
	}
	return all, nil
}

// forward runs forwards until ctx ends, or one of them cannot begin.
func (a *app) forward(ctx context.Context, n forward.Node, all []forward.Forward) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tell := a.teller()
	failed := make(chan error, len(all))
	for _, one := range all {
		go func() { failed <- forward.Run(ctx, n, one, tell) }()
	}
	var err error
	for range all {
		if e := <-failed; e != nil && err == nil {
			err = e
			cancel()
		}
	}
	return err
}

// finish ends a node that was used until an interrupt, which is no failure.
func (a *app) finish(ctx context.Context, n control.Node, err error) error {
	if ctx.Err() != nil {
		_ = end(ctx, n, ctx.Err())
		return nil
	}
	return end(ctx, n, err)
}

// teller prints what happens to forwards, from several at once.
func (a *app) teller() func(forward.Event) {
	var mu sync.Mutex
	return func(e forward.Event) {
		mu.Lock()
		defer mu.Unlock()
		if a.json {
			_ = a.print(e.JSON(), "")
			return
		}
		a.say("%s", e.Words(a.name))
	}
}

// lasting is a node for commands that outlive the running node that they go through:
// when that has ended there may be another one, or there is one of our own.
type lasting struct {
	control.Node
	a  *app
	mu sync.Mutex
}

func (l *lasting) now() control.Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Node
}

// Dial dials through whatever node there is.
func (l *lasting) Dial(ctx context.Context, id peer.ID, service string) (forward.Conn, error) {
	n := l.now()
	c, err := n.Dial(ctx, id, service)
	if !errors.Is(err, control.ErrGone) {
		return c, err
	}
	if n, err = l.after(ctx, n); err != nil {
		return nil, err
	}
	return n.Dial(ctx, id, service)
}

// after is the node that takes the place of one that has ended.
func (l *lasting) after(ctx context.Context, old control.Node) (control.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Node != old {
		return l.Node, nil
	}
	if l.a.node.server == "" {
		l.a.node.server = old.Server()
	}
	n, err := l.a.open(ctx)
	if err == nil {
		l.Node = n
	}
	return n, err
}

// Shutdown lets go of the node that there is.
func (l *lasting) Shutdown(ctx context.Context) error { return l.now().Shutdown(ctx) }

type servePortFlags struct {
	peers   []string
	anyone  bool
	reverse []string
}

func (a *app) servePortCommand() *cobra.Command {
	var f servePortFlags
	c := &cobra.Command{
		Use:   "serve-port [HOST:]PORT[-PORT][/udp]...",
		Short: "Let peers reach ports of this machine with forward",
		Long: `Let the peers that --peer names reach ports of this machine, or of others that it
reaches, with 'bodkin forward'; and nothing else, and nobody else. HOST is this machine
if it is not given; the name has to be the one that the peer uses. * for HOST or PORT
is any, and unix:PATH a Unix socket. With --reverse they may have this machine listen
on a port, for their 'bodkin forward --reverse'.

It runs until it is interrupted. Where another process runs the node of this key, such
as listen, it goes through that one; for the peers that it names the node opens itself,
but for this alone.

What peers ask for and must not have is told on standard error, once each; with
--json as objects on standard output, with event, which is serving or denied, and
peer, to, listen and reverse.`,
		Example: `  bodkin serve-port --peer PEER 22
  bodkin serve-port --peer PEER 27015/udp nas.lan:445
  bodkin serve-port --peer PEER --reverse 8080`,
		RunE: func(c *cobra.Command, args []string) error {
			rules, err := a.rules(args, f)
			if err != nil {
				return err
			}
			return a.servePorts(c.Context(), rules)
		},
	}
	a.addNodeFlags(c)
	c.Flags().StringSliceVar(&f.peers, "peer", nil, "`PEER` that may; give it again for more")
	c.Flags().BoolVar(&f.anyone, "anyone", false, "everybody who knows this node's ID may")
	c.Flags().StringArrayVar(&f.reverse, "reverse", nil, "`[ADDRESS:]PORT` that peers may have this machine listen on; give it again for more")
	return c
}

// rules are what the command line allows.
func (a *app) rules(targets []string, f servePortFlags) (rules forward.Rules, err error) {
	switch {
	case len(f.peers) == 0 && !f.anyone:
		return nil, &codeError{codeUsage, errors.New("nobody may reach anything: name peers with --peer")}
	case len(f.peers) > 0 && f.anyone:
		return nil, &codeError{codeUsage, errors.New("--peer and --anyone contradict each other")}
	case len(targets)+len(f.reverse) == 0:
		return nil, &codeError{codeUsage, errors.New("nothing may be reached: name a port, such as 22 or 27015/udp")}
	}
	who := make([]peer.ID, 1)
	if !f.anyone {
		who = nil
	}
	for _, text := range f.peers {
		id, err := a.peer(text)
		if err != nil {
			return nil, err
		}
		who = append(who, id)
	}
	for i, text := range append(targets, f.reverse...) {
		r, err := forward.ParseRule(text)
		if err != nil {
			return nil, &codeError{codeUsage, err}
		}
		r.Reverse = i >= len(targets)
		for _, id := range who {
			r.Peer = id
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// servePorts serves until ctx ends. A running node that it goes through may end
// before.
func (a *app) servePorts(ctx context.Context, rules forward.Rules) error {
	if !a.json {
		for _, r := range rules {
			a.say("allowed: %s", a.ruleWords(r))
		}
	}
	for {
		n := a.running(ctx)
		if n == nil {
			return a.serveByOwn(ctx, rules)
		}
		err := a.serveBy(ctx, n, rules)
		if !errors.Is(err, control.ErrGone) {
			return a.finish(ctx, n, err)
		}
		a.node.server = cmp.Or(a.node.server, n.Server())
	}
}

// serveBy serves through a running node, which lets the peers in for it.
func (a *app) serveBy(ctx context.Context, n control.Node, rules forward.Rules) error {
	for _, id := range rules.Peers() {
		end, err := n.Admit(ctx, id, forward.Service)
		if err != nil {
			return err
		}
		defer end()
	}
	return a.servePeers(ctx, n, rules)
}

// serveByOwn serves by a node of our own, which other commands may use.
func (a *app) serveByOwn(ctx context.Context, rules forward.Rules) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	cfg.Peers = rules.Peers()
	log, err := a.openEvents()
	if err != nil {
		return err
	}
	own, err := start(ctx, cfg, log)
	if err != nil {
		log.close()
		return err
	}
	n := &logged{Node: control.Local(own), log: log, n: own}
	commands, err := control.Serve(n.ID(), n)
	if err != nil {
		a.say("bodkin: other commands cannot use this node: %v", err)
	}
	err = a.servePeers(ctx, n, rules)
	if commands != nil {
		commands.Close()
	}
	return a.finish(ctx, n, err)
}

func (a *app) servePeers(ctx context.Context, n control.Node, rules forward.Rules) error {
	if !a.json {
		a.say("peer ID: %s", n.ID())
	}
	err := forward.Serve(ctx, n, rules.Allow, a.teller())
	if errors.Is(err, bodkin.ErrServiceTaken) {
		return errors.New("another process with this key lets peers reach ports already; name all of them there, or use another key")
	}
	return err
}

func (a *app) ruleWords(r forward.Rule) string {
	who, what := "everybody who knows this ID", "reach"
	if !r.Peer.IsZero() {
		who = "peer " + a.name(r.Peer)
	}
	if r.Reverse {
		what = "have us listen on"
	}
	return fmt.Sprintf("%s may %s %s", who, what, r)
}
