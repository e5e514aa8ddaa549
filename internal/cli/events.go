package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"bodkin"
	"bodkin/peer"
)

// eventLog writes what happens as JSON, an object a line: for programs that
// watch this one. A nil eventLog writes nothing.
type eventLog struct {
	mu   sync.Mutex
	file *os.File
	name func(peer.ID) string
	wg   sync.WaitGroup
}

// Kinds of lines that the command itself adds to the node's events.
const (
	eventListening bodkin.EventKind = "listening"
	eventDialling  bodkin.EventKind = "dialling"
	eventConnected bodkin.EventKind = "connected"
	eventFirstByte bodkin.EventKind = "first-byte"
	eventStatus    bodkin.EventKind = "status"
)

// eventLine is a line of the log.
type eventLine struct {
	bodkin.Event
	Name   string         `json:"name,omitempty"` // the peer's petname
	Status *bodkin.Status `json:"status,omitempty"`
}

// openEvents opens what --events names.
func (a *app) openEvents() (*eventLog, error) {
	if a.node.events == "" {
		return nil, nil
	}
	f, err := os.OpenFile(a.node.events, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, &codeError{codeUsage, fmt.Errorf("--events: %w", err)}
	}
	return &eventLog{file: f, name: a.petname}, nil
}

// follow writes a node's events until ctx ends.
func (l *eventLog) follow(ctx context.Context, n *bodkin.Node) {
	if l == nil {
		return
	}
	events := n.Events(ctx)
	l.wg.Go(func() {
		for e := range events {
			l.write(eventLine{Event: e, Name: l.name(e.Peer)})
		}
	})
}

func (l *eventLog) write(line eventLine) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = json.NewEncoder(l.file).Encode(line)
}

func (l *eventLog) say(k bodkin.EventKind, r bodkin.Route) {
	l.write(eventLine{Event: bodkin.Event{Time: time.Now(), Kind: k, Route: r}})
}

// status writes what the node knows in the end: bytes by route, above all.
func (l *eventLog) status(s bodkin.Status) {
	l.write(eventLine{Event: bodkin.Event{Time: time.Now(), Kind: eventStatus}, Status: &s})
}

// firstByte tells when the first byte passes to w.
func (l *eventLog) firstByte(w io.Writer, route func() bodkin.Route) io.Writer {
	if l == nil {
		return w
	}
	return &firstByte{Writer: w, log: l, route: route}
}

type firstByte struct {
	io.Writer
	log   *eventLog
	route func() bodkin.Route
	once  sync.Once
}

func (f *firstByte) Write(b []byte) (int, error) {
	f.once.Do(func() { f.log.say(eventFirstByte, f.route()) })
	return f.Writer.Write(b)
}

func (l *eventLog) close() {
	if l != nil {
		l.wg.Wait()
		_ = l.file.Close()
	}
}
