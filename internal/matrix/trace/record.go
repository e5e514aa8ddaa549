package trace

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"bodkin/natlab"
)

// Recorder makes a Trace of what happens in a network with the hosts "a", which
// dials, "b" and "server". It is one run's, and not safe for concurrent use.
type Recorder struct {
	lines   []Line
	index   map[string]int
	behind  map[string]string
	server  []netip.Addr
	zero    time.Time // when a asked for b, or the first packet until then
	asked   bool
	packets []*Packet
	open    map[uint64]*Packet // on their way, by the network's number; nil: left out
	data    map[dataKey]int
	omitted map[Class]int
}

// dataKey says from where what kind of data went.
type dataKey struct {
	name string
	line int
}

const (
	// keptData is how many packets of data of one kind are kept, from each place.
	keptData = 2
	// keptFirst and keptLast bound the rest.
	keptFirst, keptLast = 120, 40
)

// NewRecorder makes a recorder for a network like this.
func NewRecorder(t natlab.Topology) *Recorder {
	r := &Recorder{
		index: make(map[string]int), behind: make(map[string]string), open: make(map[uint64]*Packet),
		data: make(map[dataKey]int), omitted: make(map[Class]int),
	}
	places := make(map[string]natlab.Place)
	for _, p := range t.Places() {
		places[p.Name] = p
		r.behind[p.Name] = p.Behind
	}
	line := func(name string, kind Kind) {
		if _, ok := r.index[name]; ok {
			return // both sides are behind it
		}
		r.index[name] = len(r.lines)
		l := Line{Name: name, Kind: kind}
		if p, ok := places[name]; ok {
			l.Addr = p.Addr[0].Addr().String()
		}
		r.lines = append(r.lines, l)
	}
	line("a", Host)
	for box := r.behind["a"]; box != ""; box = r.behind[box] {
		line(box, NAT)
	}
	line(core, Core)
	line("server", Server)
	var boxes []string
	for box := r.behind["b"]; box != ""; box = r.behind[box] {
		boxes = append([]string{box}, boxes...)
	}
	for _, box := range boxes {
		line(box, NAT)
	}
	line("b", Host)
	for _, a := range places["server"].Addr {
		if a.IsValid() {
			r.server = append(r.server, a.Addr())
		}
	}
	return r
}

const core = "core"

// Observe is the recorder's natlab.Observer.
func (r *Recorder) Observe(e natlab.Event) {
	p, known := r.open[e.ID]
	switch e.What {
	case natlab.Entered:
		if !known {
			r.begin(e, r.near(e), "")
		}
	case natlab.Answered:
		r.begin(e, e.Where, "because of the packet before")
	case natlab.Translated:
		if p != nil {
			r.translated(p, e)
		}
	case natlab.Lost, natlab.Overflowed:
		text := "lost on the way"
		if e.What == natlab.Overflowed {
			text = "no room in the queue"
		}
		r.end(p, e, r.far(e), Lost, text)
	case natlab.Blocked:
		r.end(p, e, core, Dropped, "blocked")
	case natlab.Dropped:
		r.end(p, e, e.Where, Dropped, e.Reason)
	case natlab.Delivered:
		r.end(p, e, e.Where, Arrived, "")
	}
}

// near is where a packet on a link comes from, far where it goes.
func (r *Recorder) near(e natlab.Event) string {
	if e.Up {
		return e.Where
	}
	return r.outer(e.Where)
}

func (r *Recorder) far(e natlab.Event) string {
	if e.Up {
		return r.outer(e.Where)
	}
	return e.Where
}

func (r *Recorder) outer(name string) string {
	if box := r.behind[name]; box != "" {
		return box
	}
	return core
}

// begin opens a packet that sets out from a place, unless there is enough of its
// kind already.
func (r *Recorder) begin(e natlab.Event, from, text string) {
	line, known := r.index[from]
	if !known {
		return
	}
	name, class := describe(e.Packet, r.server)
	if r.zero.IsZero() || !r.asked && name == "Introduce" {
		r.asked = name == "Introduce"
		r.rebase(e.Time)
	}
	if class == Data {
		k := dataKey{name, line}
		if r.data[k]++; r.data[k] > keptData {
			r.omitted[class]++
			r.open[e.ID] = nil
			return
		}
	}
	if text == "" {
		text = fmt.Sprintf("from %v to %v", shown(e.Packet.From), shown(e.Packet.To))
	}
	p := &Packet{
		Name: name, Class: class, Bytes: len(e.Packet.Data), TTL: e.Packet.TTL,
		Stops: []Stop{{line, r.since(e.Time), Passed, text}},
	}
	r.open[e.ID] = p
	r.packets = append(r.packets, p)
}

func (r *Recorder) since(t time.Time) time.Duration { return t.Sub(r.zero) }

// rebase counts times from another moment on.
func (r *Recorder) rebase(zero time.Time) {
	shift := zero.Sub(r.zero)
	for _, p := range r.packets {
		for i := range p.Stops {
			p.Stops[i].At -= shift
		}
	}
	r.zero = zero
}

func (r *Recorder) translated(p *Packet, e natlab.Event) {
	var text string
	from, to := shown(e.Packet.From), shown(e.Packet.To)
	switch wasFrom, wasTo := shown(e.Was.From), shown(e.Was.To); {
	case wasFrom != from && wasTo != to:
		text = fmt.Sprintf("%v to %v → %v to %v", wasFrom, wasTo, from, to)
	case wasFrom != from:
		text = fmt.Sprintf("%v → %v", wasFrom, from)
	case wasTo != to:
		text = fmt.Sprintf("%v → %v", wasTo, to)
	}
	fate := Changed
	if text == "" {
		fate = Passed
	}
	if e.Verdict.Reason != "" {
		text += " (" + string(e.Verdict.Reason) + ")"
	}
	p.Stops = append(p.Stops, Stop{r.index[e.Where], r.since(e.Time), fate, text})
}

// shown is an endpoint, or an address where the protocol has no ports.
func shown(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// end is the last that is seen of a packet.
func (r *Recorder) end(p *Packet, e natlab.Event, where string, fate Fate, text string) {
	delete(r.open, e.ID)
	if p != nil {
		p.Stops = append(p.Stops, Stop{r.index[where], r.since(e.Time), fate, text})
	}
}

// Trace is what was recorded so far. Of a run with very many packets the middle is
// left out.
func (r *Recorder) Trace() Trace {
	t := Trace{Lines: r.lines, Omitted: maps.Clone(r.omitted)}
	for i, p := range r.packets {
		if i >= keptFirst && i < len(r.packets)-keptLast {
			t.Omitted[p.Class]++
			continue
		}
		t.Packets = append(t.Packets, *p)
	}
	return t
}
