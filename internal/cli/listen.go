package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/app/pipe"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

type listenFlags struct {
	allow allowFlags
	keep  bool
	exec  string

	service string
	command []string // exec, in words
}

func (a *app) listenCommand() *cobra.Command {
	var f listenFlags
	var serverless bool
	c := &cobra.Command{
		Use:   "listen [SERVICE]",
		Short: "Wait for a peer and connect it to standard input and output",
		Long: `Wait for a peer to dial, and connect it to standard input and output, as netcat
would, or with --exec to a command's. It takes one connection and ends with it;
with --keep it takes the next ones, too: one after another, or with --exec up to
64 at once, each with a command of its own. SERVICE is "pipe" if it is not given.

The words of --exec are separated by spaces; quotes, '...' or "...", keep words
together, and nothing else is special: no shell runs. The command finds the ID of
its peer in BODKIN_PEER and the service in BODKIN_SERVICE. It is told to end, with
SIGTERM, when the peer breaks the connection off or listen ends.

While it runs it answers pings, and other commands with its key go through it. A
second listen with the same key takes its place, and ends it. Where bodkin up runs
the node of this key, listen goes through that: then those whom it lets in may
connect, and those of --allow.

With --serverless it registers nowhere: it keeps its NAT open for a message that
'bodkin dial --serverless ADDRESS PEER' forges, and both punch by UDP. It takes the right
to open raw sockets, and a NAT that keeps the identifiers of pings, as Linux does.
--server, --server-via and --transports count for nothing then.

It tells standard error when it can be reached: with --json as an object with id,
server, service, and open, which is true if everybody may connect.`,
		Example: `  bodkin listen > file
  bodkin listen --allow PEER chat
  bodkin listen --keep --allow PEER --exec "/usr/sbin/sshd -i" ssh`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if f.service, err = service(args); err != nil {
				return err
			}
			if c.Flags().Changed("exec") {
				if f.command, err = words(f.exec); err != nil {
					return &codeError{codeUsage, fmt.Errorf("--exec: %w", err)}
				}
			}
			if serverless {
				a.withoutServer(&bodkin.Serverless{})
			}
			allow, err := a.allowed(f.allow)
			if err != nil {
				return err
			}
			if n := a.runningUp(c.Context()); n != nil {
				return a.listenThrough(c.Context(), n, allow, f)
			}
			cfg, err := a.config()
			if err != nil {
				return err
			}
			cfg.Peers = allow
			return a.listen(c.Context(), cfg, f)
		},
	}
	a.addNodeFlags(c)
	f.allow.add(c)
	c.Flags().BoolVar(&serverless, "serverless", false, fmt.Sprintf("be found without a server, by those who know this machine's public address (port: %d)", bodkin.ServerlessPort))
	c.Flags().BoolVar(&f.keep, "keep", false, "after a connection, take the next one")
	c.Flags().StringVar(&f.exec, "exec", "", "`COMMAND` to connect a peer with (default: standard input and output)")
	return c
}

func (a *app) listen(ctx context.Context, cfg bodkin.Config, f listenFlags) error {
	log, err := a.openEvents()
	if err != nil {
		return err
	}
	defer log.close()
	n, err := start(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { log.status(n.Status()) }()
	own := control.Local(n)
	// It waits once more: now the server knows that we listen.
	waiting, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	l, err := own.Listen(waiting, f.service)
	if err == nil && cfg.Serverless == nil {
		l, err = alsoTCP(n, l, f.service)
	}
	if err != nil {
		return end(ctx, n, err)
	}
	log.say(eventListening, bodkin.Route{})
	commands, err := control.Serve(n.ID(), own)
	if err != nil {
		a.say("bodkin: other commands cannot use this node: %v", err)
	}
	a.greet(greeting{n.ID(), cfg.Server, f.service, cfg.Peers == nil})
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if f.allow.known {
		following, enough := context.WithCancel(ctx)
		defer enough()
		go a.followBook(following, n, f.allow)
	}
	err = a.take(ctx, l, f, log)
	if commands != nil {
		a.letGo(ctx, commands, err)
	}
	return end(ctx, n, err)
}

// runningUp is the running node of our key, if bodkin up runs it.
func (a *app) runningUp(ctx context.Context) control.Node {
	n := a.running(ctx)
	if n == nil {
		return nil
	}
	if up, err := upStatus(ctx, n); err != nil || up == nil {
		return nil
	}
	return n
}

// listenThrough listens by a node that runs on. It lets in those of --allow for this
// service, and without --allow the rest of its peers stays.
func (a *app) listenThrough(ctx context.Context, n control.Node, allow []peer.ID, f listenFlags) error {
	for _, id := range allow {
		end, err := n.Admit(ctx, id, f.service)
		if err != nil {
			return err
		}
		defer end()
	}
	l, err := n.Listen(ctx, f.service)
	if err != nil {
		return err
	}
	if f.allow.known {
		allow = nil // those are the ones whom bodkin up lets in, at any time
	}
	a.greet(greeting{n.ID(), n.Server(), f.service, false})
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	return a.take(ctx, &picky{l, allow}, f, nil)
}

// picky is a listener that takes some peers only, or with nil all.
type picky struct {
	forward.Listener
	peers []peer.ID
}

// AcceptConn implements [forward.Listener].
func (p *picky) AcceptConn() (forward.Incoming, error) {
	for {
		c, err := p.Listener.AcceptConn()
		if err != nil || p.peers == nil || slices.Contains(p.peers, c.Peer()) {
			return c, err
		}
		_ = c.Abort()
	}
}

// letGo ends what other commands do with this node: in good order it waits.
func (a *app) letGo(ctx context.Context, commands *control.Server, err error) {
	commands.Leave()
	if b := commands.Busy(); err == nil && b > 0 {
		a.say("bodkin: waiting for other commands with this key: %s", count(b, "connection"))
		commands.Wait(ctx)
	}
	commands.Close()
}

// greeting is what `bodkin listen --json` says first, to standard error.
type greeting struct {
	ID      peer.ID `json:"id"`
	Server  string  `json:"server"`
	Service string  `json:"service"`
	Open    bool    `json:"open"` // to everybody who knows the ID
}

// greet says who we are and how the other side reaches us. Standard output is
// the peer's.
func (a *app) greet(g greeting) {
	if a.json {
		a.sayJSON(g)
		return
	}
	a.say("peer ID: %s", g.ID)
	command := []string{"bodkin dial --server", g.Server, g.ID.String()}
	if g.Server == "" {
		command = []string{"bodkin dial --serverless ADDRESS", g.ID.String()}
	}
	if g.Service != defaultService {
		command = append(command, g.Service)
	}
	a.say("connect with: %s", strings.Join(command, " "))
	if g.Open {
		a.say("note: everybody who knows this peer ID may connect; name peers with --allow, or take --allow-known, to change that")
	}
}

// maxCommands bounds the commands that run at once: a peer that dials without
// end must not fill the machine.
const maxCommands = 64

// atOnce is how many connections there can be. They cannot share our streams.
func (f listenFlags) atOnce() int {
	if f.command != nil {
		return maxCommands
	}
	return 1
}

// take takes one connection, or with --keep one after another until it is
// interrupted or displaced.
func (a *app) take(ctx context.Context, l forward.Listener, f listenFlags, log *eventLog) error {
	serve := a.connect(f, log)
	if f.keep {
		return a.takeAll(ctx, l, log, serve, f.atOnce())
	}
	c, err := a.accept(ctx, l, log)
	if err != nil {
		return err
	}
	_ = l.Close()
	return serve(ctx, c)
}

// connector is what is done with a connection, until it has ended.
type connector func(context.Context, forward.Incoming) error

func (a *app) connect(f listenFlags, log *eventLog) connector {
	if f.command != nil {
		return func(ctx context.Context, c forward.Incoming) error {
			env := append(os.Environ(), "BODKIN_PEER="+c.Peer().String(), "BODKIN_SERVICE="+f.service)
			return pipe.Command{Args: f.command, Env: env, Stderr: a.err}.Run(ctx, c)
		}
	}
	turns := pipe.NewTurns(a.in)
	return func(ctx context.Context, c forward.Incoming) error {
		turn := turns.Take()
		defer func() { _ = turn.Close() }()
		s := a.streams()
		s.In, s.Out = turn, log.firstByte(a.out, func() bodkin.Route { return routeTo(c) })
		return pipe.Run(ctx, c, s)
	}
}

// takeAll takes connections one after another, or several at once.
func (a *app) takeAll(ctx context.Context, l forward.Listener, log *eventLog, serve connector, atOnce int) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, atOnce)
	for {
		free <- struct{}{}
		c, err := a.accept(ctx, l, log)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { <-free }()
			a.over(ctx, c, serve(ctx, c))
			_ = c.Close()
		})
	}
}

// over tells how one of many connections ended. That a peer breaks off its
// connection with a command is usual: ssh ends its ProxyCommand so.
func (a *app) over(ctx context.Context, c forward.Incoming, err error) {
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, pipe.ErrBroken):
		a.logger().Info("connection ended", "peer", c.Peer(), "error", err)
	default:
		a.say("bodkin: connection with peer %s: %v", a.name(c.Peer()), err)
	}
}

// accept takes the next connection.
func (a *app) accept(ctx context.Context, l forward.Listener, log *eventLog) (forward.Incoming, error) {
	c, err := l.AcceptConn()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	route := routeTo(c)
	a.logger().Info("connected", "peer", c.Peer(), "route", route.Transport)
	log.say(eventConnected, route)
	return c, nil
}

// routeTo is the route of a connection of our own node; of others there is none to
// tell.
func routeTo(c forward.Incoming) bodkin.Route {
	if own, ok := c.(interface{ Route() bodkin.Route }); ok {
		return own.Route()
	}
	return bodkin.Route{}
}
