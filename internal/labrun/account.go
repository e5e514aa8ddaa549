package labrun

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"bodkin"
	"bodkin/natlab/netbed"
)

// account shows a run as it goes: lines for people, or JSON for programs.
type account struct {
	mu      sync.Mutex
	out     io.Writer
	json    bool
	quiet   bool // further runs are summed up only
	begin   time.Time
	changed chan struct{}
}

func newAccount(cfg Config) *account {
	return &account{out: cfg.Out, json: cfg.JSON, begin: time.Now(), changed: make(chan struct{})}
}

func (a *account) line(format string, args ...any) {
	if !a.json {
		_, _ = fmt.Fprintf(a.out, format+"\n", args...)
	}
}

func (a *account) built(l *netbed.Lab, took time.Duration) {
	a.line(`two homes, one server, in namespaces (%.0f ms):

  a %s — NAT %s ──┐
                               ├── core ── server %s
  b %s — NAT %s ──┘
`, ms(took), l.Host("a").Addr(), l.Box("home-a").Addr(), l.Host("server").Addr(), l.Host("b").Addr(), l.Box("home-b").Addr())
}

// names says where each program runs.
var names = map[string]string{"serve": "server", "listen": "b", "dial": "a", "ping": "a"}

// event shows one event.
func (a *account) event(program string, e event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
	if a.quiet {
		return
	}
	if a.json {
		_ = json.NewEncoder(a.out).Encode(struct {
			Host string `json:"host"`
			event
		}{names[program], e})
		return
	}
	if text := describe(e); text != "" {
		a.line("%8.1f ms  %s  %s", ms(e.Time.Sub(a.begin)), names[program], text)
	}
}

func describe(e event) string {
	switch e.Kind {
	case bodkin.EventRegistered:
		return fmt.Sprintf("registered; from outside it is %v", e.Endpoint)
	case "dialling":
		return "dials"
	case "connected":
		return "connected over " + e.Route.Transport
	case "first-byte":
		return "first byte, over " + e.Route.Transport
	case bodkin.EventIntroduced:
		return fmt.Sprintf("introduced; the peer is at %v", e.Route.Endpoint)
	case bodkin.EventRouteConfirmed:
		return fmt.Sprintf("hole confirmed: %s to %v (%s), round trip %.1f ms", e.Route.Transport, e.Route.Endpoint, e.Route.Kind, ms(e.Route.RTT))
	case bodkin.EventRouteLost:
		return fmt.Sprintf("route lost: %s to %v: %s", e.Route.Transport, e.Route.Endpoint, e.Reason)
	case bodkin.EventSwitched:
		return "traffic takes " + e.Route.Transport + " now"
	case bodkin.EventServerLost:
		return "the server no longer answers"
	case bodkin.EventFailed:
		return "failed: " + e.Reason
	case eventStatus:
		return "seen from inside: " + fmt.Sprint(e.Status.Private) + ", from outside: " + fmt.Sprint(e.Status.Observed)
	default:
		return ""
	}
}

const eventStatus bodkin.EventKind = "status"

// await waits until a program has had an event, or has ended.
func (a *account) await(p *process, what string, like func(event) bool) error {
	deadline := time.After(patience)
	for {
		a.mu.Lock()
		changed := a.changed
		a.mu.Unlock()
		if _, ok := p.first(like); ok {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("lab: %s ended before it was %s: %s", p.name, what, strings.TrimSpace(p.stderr.String()))
		case <-deadline:
			return fmt.Errorf("lab: %s was not %s in time", p.name, what)
		}
	}
}

// sum takes the figures out of the events.
func (res *Result) sum(dialler, listener *process) {
	begin, ok := dialler.first(kind("dialling"))
	if !ok {
		return
	}
	since := func(p *process, like func(event) bool) float64 {
		if e, ok := p.first(like); ok {
			return ms(e.Time.Sub(begin.Time))
		}
		return 0
	}
	res.ConnectedMS = since(dialler, kind("connected"))
	res.DirectMS = since(dialler, direct)
	res.FirstByteMS = since(listener, kind("first-byte"))
	res.TransferMS = since(listener, kind(eventStatus))
	_, res.Direct = dialler.first(direct)
	if e, ok := dialler.first(kind(eventStatus)); ok && e.Status != nil {
		for _, p := range e.Status.Peers {
			for transport, t := range p.Traffic {
				if transport == "relay" {
					res.SentRelay += t.Sent
				} else {
					res.SentDirect += t.Sent
				}
			}
		}
	}
}

// ran shows one of the further runs.
func (a *account) ran(n, of int, r Result) {
	way, file := "no hole", "whole"
	if r.Direct {
		way = fmt.Sprintf("direct after %.1f ms", r.DirectMS)
	}
	if !r.whole() {
		file = "not whole " + r.Why
	}
	a.line("run %d of %d: %s, file %s", n, of, way, file)
}

// verdict shows the end.
func (a *account) verdict(r Result) {
	if a.json {
		_ = json.NewEncoder(a.out).Encode(struct {
			Kind string `json:"kind"`
			Result
		}{"result", r})
		return
	}
	a.line("")
	if r.Direct {
		a.line("direct after %.1f ms; the limit RTT(A,S)+RTT(A,B) is %.1f ms", r.DirectMS, r.LimitMS)
	}
	a.line("connected after %.1f ms, first byte at B after %.1f ms; a relay round trip is %.1f ms", r.ConnectedMS, r.FirstByteMS, r.RelayRTTMS)
	a.line("%d bytes moved in %.1f ms; sent over the relay: %d, through the hole: %d", r.Bytes, r.TransferMS, r.SentRelay, r.SentDirect)
	if n := r.Runs; n != nil {
		a.line("further runs: %d, with a direct route in %d and the file whole in %d", n.Runs, n.Direct, n.Whole)
		a.line("  direct after     %v\n  connected after  %v\n  first byte after %v", n.DirectMS, n.ConnectedMS, n.FirstByteMS)
	}
	if r.SHA256A == r.SHA256B {
		a.line("SHA-256 at both ends: %s", r.SHA256A)
	} else {
		a.line("SHA-256 at A: %s\nSHA-256 at B: %s", r.SHA256A, r.SHA256B)
	}
}
