package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bodkin"
	"bodkin/internal/config"
	"bodkin/internal/control"
	"bodkin/internal/daemon"
	"bodkin/peer"
	"bodkin/rendezvous"

	"github.com/spf13/cobra"
)

func (a *app) upCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Run the node of the configuration file, with its forwards",
		Long: `Run a node until it is told to end, as the configuration file says: see bodkin help
config. It keeps the file's forwards, lets peers reach what the file allows, and
answers pings; other commands with its key go through it. Whoever is in the address
book may connect, and who is allowed something; nobody else.

It reads the file again when that changes, and on SIGHUP. What is the same in it runs
on, connections included; settings, such as the server, hold after a restart. A file
that is wrong is told of, and not taken. A forward that cannot begin, because its port
is in use, say, is told of and tried again.

For systemd there are units in the folder dist of the source: it is told of readiness,
reloads and the watchdog. bodkin status shows what is forwarded and allowed, and what
came of it.

What happens is told on standard error; with --json as objects on standard output, as
by bodkin forward and serve-port.`,
		Example: "  bodkin up\n  bodkin up --check\n  bodkin up --config /etc/bodkin/config.toml --key /var/lib/bodkin/node.key",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := a.file()
			if err != nil {
				return err
			}
			plan, err := daemon.PlanOf(file)
			if err != nil {
				return err
			}
			if check {
				return a.print(map[string]any{"file": file.Path, "ok": true}, "%s is right: %s", file.Path, planWords(plan))
			}
			return a.up(c.Context(), file, plan)
		},
	}
	a.addNodeFlags(c)
	c.Flags().BoolVar(&check, "check", false, "say whether the configuration file is right, and end")
	return c
}

// planWords sums a plan up.
func planWords(p daemon.Plan) string {
	return fmt.Sprintf("%s may connect, %s, %s", count(len(p.Peers), "peer"), count(len(p.Forwards), "forward"), count(len(p.Rules), "allowance"))
}

// up runs the plan until ctx ends, which is no failure.
func (a *app) up(ctx context.Context, file *config.Config, plan daemon.Plan) error {
	a.reloads.Store(true)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	if err := a.alone(ctx); err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	d := daemon.New(plan, a.teller())
	cfg.Peers, cfg.Allow = d.Peers(), d.Allows
	log, err := a.openEvents()
	if err != nil {
		return err
	}
	defer log.close()
	n, err := begin(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { log.status(n.Status()) }()
	own := control.Local(n)
	commands, err := control.Serve(n.ID(), own)
	if err != nil {
		return end(ctx, n, err)
	}
	commands.Report(func() any { return d.Status() })
	d.Start(ctx, daemon.On(n))
	s := &upkeep{app: a, node: n, daemon: d, notifier: newNotifier(), file: file, plan: plan}
	s.seen = s.look()
	err = s.run(ctx, hangups)
	s.notifier.say("STOPPING=1")
	d.Close()
	commands.Close()
	return a.finish(ctx, own, err)
}

// alone makes sure that no other process runs the node of our key.
func (a *app) alone(ctx context.Context) error {
	path, err := keyFile(a.node.key, "node.key")
	if err != nil {
		return err
	}
	key, err := peer.LoadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := control.Connect(ctx, key.ID()); err == nil {
		return fmt.Errorf("a node with the key %s runs on this machine already: end it first (see `bodkin status`), or take another key with --key", path)
	}
	return nil
}

// lookEvery is how often the daemon looks at its file and at itself.
const lookEvery = 500 * time.Millisecond

// upkeep is a daemon that follows its file and tells systemd.
type upkeep struct {
	*app
	node     *bodkin.Node
	daemon   *daemon.Daemon
	notifier *notifier
	file     *config.Config
	plan     daemon.Plan
	seen     os.FileInfo // of the file as it was read last; nil: there was none
	changed  os.FileInfo // of one that is not seen for long enough yet
	endpoint netip.AddrPort
}

// run follows the file until ctx ends, or the node is displaced.
func (s *upkeep) run(ctx context.Context, hangups <-chan os.Signal) error {
	s.greet()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.complain(ctx) })
	serving := make(chan error, 1)
	go func() { serving <- s.daemon.Serve() }() // until the daemon is closed
	s.notifier.say("READY=1")
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-serving:
			return err
		case <-hangups:
			s.notifier.say("RELOADING=1")
			s.reload(ctx)
			s.notifier.say("READY=1")
		case now := <-tick.C:
			s.follow(ctx)
			s.tellRegistered(s.node.Status())
			s.notifier.alive(now)
		}
	}
}

// greet says who we are, and who may do what.
func (s *upkeep) greet() {
	if s.json {
		s.sayJSON(map[string]any{"id": s.node.ID(), "server": s.node.Status().Server, "file": s.file.Path})
		return
	}
	s.say("peer ID: %s", s.node.ID())
	s.say("%s: %s", s.file.Path, planWords(s.plan))
	if len(s.plan.Peers) == 0 {
		s.say("note: nobody may connect yet: name peers with `bodkin peer add NAME ID`")
	}
	if len(s.plan.Peers) > rendezvous.MaxPeers {
		s.say("note: the server takes %d peers at the most, and will introduce everybody who knows this ID; the rest is refused here", rendezvous.MaxPeers)
	}
}

// complain says why the node is not registered, if it is not soon.
func (s *upkeep) complain(ctx context.Context) {
	if err := registered(ctx, s.node); err != nil && ctx.Err() == nil {
		s.say("bodkin: not registered yet: %v", err)
	}
}

// tellRegistered says when the server knows us, and at which endpoint, or no longer.
func (s *upkeep) tellRegistered(now bodkin.Status) {
	var at netip.AddrPort
	if now.Registered && len(now.Observed) > 0 {
		at = now.Observed[0]
	}
	if at == s.endpoint {
		return
	}
	s.endpoint = at
	if at.IsValid() {
		s.notifier.say("STATUS=registered, seen from outside as %v; %s", at, planWords(s.plan))
		if !s.json {
			s.say("registered; from outside this node is %v", at)
		}
		return
	}
	s.notifier.say("STATUS=not registered; %s", planWords(s.plan))
	if !s.json {
		s.say("the server does not answer; direct connections go on")
	}
}

// look is how the file is now; nil if there is none.
func (s *upkeep) look() os.FileInfo {
	info, err := os.Stat(s.file.Path)
	if err != nil {
		return nil
	}
	return info
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// follow reads the file again when it has changed and stayed so for a moment: who
// writes it may not be done.
func (s *upkeep) follow(ctx context.Context) {
	now := s.look()
	switch {
	case sameFile(now, s.seen):
		s.changed = nil
	case now != nil && !sameFile(now, s.changed):
		s.changed = now
	default:
		s.reload(ctx)
	}
}

// reload reads the file and does what it says now, or leaves everything as it is.
func (s *upkeep) reload(ctx context.Context) {
	s.seen, s.changed = s.look(), nil
	file, err := s.readFile()
	var plan daemon.Plan
	if err == nil {
		plan, err = daemon.PlanOf(file)
	}
	if err == nil {
		err = s.daemon.Apply(plan)
	}
	if err != nil {
		s.say("bodkin: %v\nbodkin: the configuration file is wrong, and not taken: what ran before runs on", err)
		return
	}
	s.tellServer(ctx)
	later := changedSettings(s.file, file)
	s.file, s.plan = file, plan
	s.fileRead.Store(file)
	if !s.json {
		s.say("%s, read again: %s", file.Path, planWords(plan))
	}
	if len(later) > 0 {
		s.say("note: %s changed, which holds after a restart", strings.Join(later, ", "))
	}
}

// tellTime is how long the server may take to hear who may connect now.
const tellTime = 2 * time.Second

// tellServer waits until the server knows who may connect now, if it is there.
func (s *upkeep) tellServer(ctx context.Context) {
	if s.node.Status().Registered {
		ctx, cancel := context.WithTimeout(ctx, tellTime)
		defer cancel()
		_ = s.node.WaitRegistered(ctx)
	}
}

// changedSettings are the names of settings that differ.
func changedSettings(a, b *config.Config) (names []string) {
	values := func(c *config.Config) map[string]string {
		out := make(map[string]string)
		for _, s := range c.Settings {
			out[s.Name] = strings.Join(s.Values, ",")
		}
		return out
	}
	before, after := values(a), values(b)
	for name := range after {
		if was, ok := before[name]; !ok || was != after[name] {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
