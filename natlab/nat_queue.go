package natlab

// expiry is when a state ends. It is in the queue under an older time until that
// comes, so that refreshing costs nothing.
type expiry struct {
	at    int64 // when it ends
	due   int64 // its place in the queue; never after at
	place int
	owner expirer
}

// expirer is what an expiry is of. It is out of the queue when it is told.
type expirer interface{ expire(t *Translator) }

// expiries is a heap by due.
type expiries []*expiry

func (q *expiries) add(e *expiry, at int64, owner expirer) {
	e.at, e.due, e.owner, e.place = at, at, owner, len(*q)
	*q = append(*q, e)
	q.up(e.place)
}

// set changes when e ends.
func (q *expiries) set(e *expiry, at int64) {
	e.at = at
	if at < e.due {
		e.due = at
		q.up(e.place)
	}
}

// remove takes e out; it may be out already.
func (q *expiries) remove(e *expiry) {
	if e.place < 0 {
		return
	}
	i, last := e.place, len(*q)-1
	q.swap(i, last)
	(*q)[last] = nil
	*q = (*q)[:last]
	e.place = -1
	if i < last {
		q.down(i)
		q.up(i)
	}
}

// next removes and returns a state that has ended by now, nil if none has.
func (q *expiries) next(now int64) *expiry {
	for len(*q) > 0 {
		e := (*q)[0]
		switch {
		case e.due > now:
			return nil
		case e.at > now:
			e.due = e.at
			q.down(0)
		default:
			q.remove(e)
			return e
		}
	}
	return nil
}

func (q expiries) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q expiries) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q[parent].due <= q[i].due {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q expiries) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q[child+1].due < q[child].due {
			child++
		}
		if q[i].due <= q[child].due {
			return
		}
		q.swap(i, child)
		i = child
	}
}
