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

// watch counts which packets between the homes are dropped, and by whom.
func (r *run) watch(e natlab.Event) {
	if r.begin.IsZero() || e.Packet.Protocol != natlab.ProtocolUDP || e.What != natlab.Dropped && e.What != natlab.Blocked {
		return
	}
	if r.drops == nil {
		r.drops = make(map[drop]int)
	}
	reason := e.Reason
	if e.What == natlab.Blocked {
		reason = "blocked"
	}
	r.drops[drop{e.Where, reason}]++
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
	most, n := "", 0
	for _, d := range slices.SortedFunc(maps.Keys(r.drops), func(a, b drop) int {
		return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.reason, b.reason))
	}) {
		if r.drops[d] > n {
			most, n = fmt.Sprintf("%s dropped %d packets: %s", d.where, r.drops[d], d.reason), r.drops[d]
		}
	}
	if most == "" {
		return "no hole"
	}
	return most
}
