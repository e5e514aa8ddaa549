package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"bodkin/natlab"
)

// drop is a place where packets end, and why.
type drop struct{ where, reason string }

// Drops counts which UDP packets are dropped, and by whom. The zero Drops has seen
// none.
type Drops struct{ counts map[drop]int }

// Watch counts an event of a network, if it is one that ends a packet.
func (d *Drops) Watch(e natlab.Event) {
	if e.Packet.Protocol != natlab.ProtocolUDP || e.What != natlab.Dropped && e.What != natlab.Blocked {
		return
	}
	if d.counts == nil {
		d.counts = make(map[drop]int)
	}
	reason := e.Reason
	if e.What == natlab.Blocked {
		reason = "blocked"
	}
	d.counts[drop{e.Where, reason}]++
}

// Most is the place where most packets ended, and why.
func (d *Drops) Most() string {
	text, most := "no hole", 0
	for _, x := range slices.SortedFunc(maps.Keys(d.counts), func(a, b drop) int {
		return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.reason, b.reason))
	}) {
		if n := d.counts[x]; n > most {
			text, most = fmt.Sprintf("%s dropped %d packets: %s", x.where, n, x.reason), n
		}
	}
	return text
}

// watch counts what is dropped after the dial.
func (r *run) watch(e natlab.Event) {
	if !r.begin.IsZero() {
		r.drops.Watch(e)
	}
}

// unregistered says which node did not register, and why.
func (r *run) unregistered() string {
	x, name := r.a, "a"
	if x.registered {
		x, name = r.b, "b"
	}
	if x.err != nil {
		return fmt.Sprintf("%s is not registered: %v", name, x.err)
	}
	return name + " is not registered"
}

// why says what was in the way of a hole.
func (r *run) why() string {
	switch {
	case r.a.introduced.IsZero() && r.a.err != nil:
		return "not introduced: " + r.a.err.Error()
	case r.a.introduced.IsZero():
		return "not introduced"
	case r.b.introduced.IsZero():
		return "b was not told"
	}
	return r.drops.Most()
}
