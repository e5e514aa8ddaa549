package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bodkin"
	"bodkin/internal/app/share"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

// shareFlags are those of both send and receive.
type shareFlags struct {
	relay string
	wait  time.Duration
}

const (
	relayAuto  = "auto"
	relayNever = "never"
)

func (f *shareFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.relay, "relay", relayAuto, "`WHEN` data may take the relay: auto or never, which waits for a direct route and says why if there is none")
	c.Flags().DurationVar(&f.wait, "wait", 0, "`TIME` that the other side may be away, such as 10m (default: no end)")
}

func (f *shareFlags) options(tell *shareTeller) (share.Options, error) {
	if f.relay != relayAuto && f.relay != relayNever {
		return share.Options{}, &codeError{codeUsage, fmt.Errorf("--relay %q: it needs auto or never", f.relay)}
	}
	if f.wait < 0 {
		return share.Options{}, &codeError{codeUsage, errors.New("--wait cannot be negative")}
	}
	return share.Options{DirectOnly: f.relay == relayNever, Wait: f.wait, Notice: tell.notice}, nil
}

// shareNode is a node as package share knows it.
type shareNode struct{ control.Node }

func (n shareNode) Dial(ctx context.Context, id peer.ID, service string) (share.Conn, error) {
	c, err := n.Node.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n shareNode) Listen(ctx context.Context, service string) (share.Listener, error) {
	l, err := n.Node.Listen(ctx, service)
	if err != nil {
		return nil, err
	}
	return shareListener{l}, nil
}

type shareListener struct {
	in interface {
		AcceptConn() (incoming, error)
		Close() error
	}
}

func (l shareListener) Accept() (share.Conn, peer.ID, error) {
	c, err := l.in.AcceptConn()
	if err != nil {
		return nil, peer.ID{}, err
	}
	return c, c.Peer(), nil
}

func (l shareListener) Close() error { return l.in.Close() }

// Route is the route in use to a peer: by any of its processes, the direct one if there is.
func (n shareNode) Route(ctx context.Context, id peer.ID) (best bodkin.Route) {
	s, err := n.Status(ctx)
	if err != nil {
		return best
	}
	for _, p := range s.Peers {
		if p.ID == id && len(p.Routes) > 0 && (best.Transport == "" || p.Routes[0].Direct()) {
			best = p.Routes[0]
		}
	}
	return best
}

// listening is the running node of our key, or one of our own, to which those peers may
// connect (nil: everybody), and which other commands may use until stop.
func (a *app) listening(ctx context.Context, peers []peer.ID) (n control.Node, stop func(error), err error) {
	if n := a.running(ctx); n != nil {
		for _, id := range peers {
			if _, err := n.Admit(ctx, id, share.Service); err != nil {
				return nil, nil, err
			}
		}
		return n, func(error) {}, nil
	}
	cfg, err := a.config()
	if err != nil {
		return nil, nil, err
	}
	cfg.Peers = peers
	log, err := a.openEvents()
	if err != nil {
		return nil, nil, err
	}
	own, err := start(ctx, cfg, log)
	if err != nil {
		log.close()
		return nil, nil, err
	}
	n = &logged{Node: control.Local(own), log: log, n: own}
	commands, err := control.Serve(own.ID(), n)
	if err != nil {
		a.say("bodkin: other commands cannot use this node: %v", err)
		return n, func(error) {}, nil
	}
	return n, func(err error) { a.letGo(ctx, commands, err) }, nil
}

// partTime is how long the last word may take to reach the other side. One that is gone, and
// that has come back since as another process, will never read what it was sent.
const partTime = 3 * time.Second

// part ends a node after a transfer, or lets go of it. After one that was sent well there
// is no last word.
func part(ctx context.Context, n control.Node, err error, sent bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), partTime)
	defer cancel()
	if sent {
		cancel() // everything is there, and they have said so
	}
	_ = n.Shutdown(ctx)
	return shareError(err)
}

// shareError gives an error of a transfer its exit code.
func shareError(err error) error {
	var failed *share.Failure
	if errors.As(err, &failed) && failed.Declined() {
		return &codeError{codeRefused, err}
	}
	return err
}

// shareEvent is a line of `bodkin send --json` and `bodkin receive --json`.
type shareEvent struct {
	Event    string   `json:"event"`
	Code     string   `json:"code,omitempty"`
	Until    string   `json:"until,omitempty"`
	Server   string   `json:"server,omitempty"`
	Peer     peer.ID  `json:"peer,omitzero"`
	Reason   string   `json:"reason,omitempty"`
	Name     string   `json:"name,omitempty"`
	Files    int64    `json:"files,omitempty"`
	Bytes    int64    `json:"bytes,omitempty"`
	Done     int64    `json:"done,omitempty"`
	Kept     int64    `json:"kept,omitempty"`
	Sent     int64    `json:"sent,omitempty"`
	Rate     float64  `json:"bytes_per_s,omitempty"`
	Left     float64  `json:"left_s,omitempty"`
	Route    string   `json:"route,omitempty"`
	Paths    []string `json:"paths,omitempty"`
	Text     string   `json:"text,omitempty"`
	LeftOut  []string `json:"left_out,omitempty"`
	Changed  []string `json:"notes,omitempty"`
	KeptHere string   `json:"kept_in,omitempty"`
}

// shareTeller tells people and programs how transfers go.
type shareTeller struct {
	a     *app
	verb  string // sent, received
	json  func(shareEvent)
	bar   bool
	route func(peer.ID) bodkin.Route

	mu    sync.Mutex
	going map[peer.ID]*goingTransfer
	shown bool
	stop  chan struct{}
	wg    sync.WaitGroup
}

// goingTransfer is one that is under way.
type goingTransfer struct {
	progress *share.Progress
	rate     flow
	route    string
}

func (a *app) newShareTeller(verb string, json func(shareEvent)) *shareTeller {
	return &shareTeller{
		a: a, verb: verb, json: json, bar: !a.json && isTerminal(a.err),
		going: make(map[peer.ID]*goingTransfer), stop: make(chan struct{}),
	}
}

// How often the bar changes, and a program is told.
const (
	barEvery  = 100 * time.Millisecond
	jsonEvery = 500 * time.Millisecond
)

// run begins to tell of the routes of a node, and how far transfers are, until end.
func (t *shareTeller) run(ctx context.Context, n shareNode) {
	t.route = func(id peer.ID) bodkin.Route { return n.Route(ctx, id) }
	every := jsonEvery
	if t.bar {
		every = barEvery
	}
	if !t.bar && !t.a.json {
		return
	}
	t.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.tick(time.Now())
			case <-t.stop:
				return
			}
		}
	})
}

// end takes the bar away.
func (t *shareTeller) end() {
	close(t.stop)
	t.wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}

func (t *shareTeller) clear() {
	if t.shown {
		_, _ = fmt.Fprint(t.a.err, "\r\x1b[K")
		t.shown = false
	}
}

// ask prints a question, for the answer to stand behind it.
func (t *shareTeller) ask(question string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	_, _ = fmt.Fprint(t.a.err, question)
}

// tick tells how far all are.
func (t *shareTeller) tick(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var line barState
	for id, g := range t.going {
		c := g.progress.Counts()
		g.rate.add(now, c.Got)
		route := routeWord(t.route(id))
		changed := route != "" && route != g.route
		if changed && g.route != "" && t.bar {
			t.clear()
			t.a.say("the route to %s is %s now", t.a.name(id), route)
		}
		if changed {
			g.route = route
		}
		if t.a.json {
			if changed {
				t.json(shareEvent{Event: "route", Peer: id, Route: route})
			}
			t.json(g.event("progress", id))
		}
		line.add(c, g)
	}
	if t.bar && len(t.going) > 0 {
		t.shown = true
		_, _ = fmt.Fprintf(t.a.err, "\r\x1b[K%s", line.text())
	}
}

func (g *goingTransfer) event(kind string, id peer.ID) shareEvent {
	c := g.progress.Counts()
	return shareEvent{
		Event: kind, Peer: id, Bytes: c.Total, Done: c.Kept + c.Got, Kept: c.Kept, Sent: c.Sent, Rate: g.rate.now(),
		Left: g.rate.left(c.Total - c.Kept - c.Got).Seconds(), Route: g.route, Files: c.Files,
	}
}

// routeWord is a route for people.
func routeWord(r bodkin.Route) string {
	switch {
	case r.Transport == "":
		return ""
	case r.Direct():
		return "direct"
	}
	return "relayed"
}

// notice takes what the transfer says.
func (t *shareTeller) notice(n share.Notice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := shareEvent{Event: string(n.Kind), Peer: n.Peer}
	if n.Error != nil {
		e.Reason = n.Error.Error()
	}
	switch n.Kind {
	case share.NoticeBegun:
		g := &goingTransfer{progress: n.Progress}
		if t.route != nil {
			g.route = routeWord(t.route(n.Peer))
		}
		t.going[n.Peer] = g
		e = g.event(e.Event, n.Peer)
	case share.NoticeDone:
		if g := t.going[n.Peer]; g != nil {
			g.rate.add(time.Now(), g.progress.Counts().Got)
			e = g.event(e.Event, n.Peer)
		}
		delete(t.going, n.Peer)
	default:
		if g := t.going[n.Peer]; g != nil {
			reason := e.Reason
			e = g.event(e.Event, n.Peer)
			e.Reason = reason
		}
		delete(t.going, n.Peer)
	}
	if t.a.json {
		t.json(e)
		return
	}
	t.clear()
	switch n.Kind {
	case share.NoticeBegun:
	case share.NoticeWaiting:
		t.a.say("waiting for %s: %s", t.a.name(n.Peer), plain(n.Error))
	case share.NoticeFailed:
		who := "a code"
		if !n.Peer.IsZero() {
			who = t.a.name(n.Peer)
		}
		t.a.say("%s: %s", who, plain(n.Error))
	case share.NoticeDone:
		t.a.say("%s", doneLine(t.verb, t.a.name(n.Peer), n.Progress.Counts(), time.Now()))
	}
}

// plain is an error without what the program prints anyway.
func plain(err error) string {
	if dial, ok := errors.AsType[*bodkin.DialError](err); ok {
		err = dial.Err
	}
	return err.Error()
}
