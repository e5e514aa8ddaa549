package matrix

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/natlab"
)

// Grid is punches between all ordered pairs of presets: who asks matters.
type Grid struct {
	Presets []natlab.Preset
	// Options are what all pairs share; their presets and seed are the grid's.
	Options natlab.Options
	Runs    int // of each pair
	Seed    uint64
	Limit   time.Duration // as Config's
	// Transports are Config's.
	Transports []string
	// Workers is how many runs go on at the same time; as many as there are
	// processors if 0. It changes no result in virtual time.
	Workers int
	// Punch does a run; in virtual time if nil.
	Punch func(context.Context, Config) (Result, error)
	// Progress, if not nil, is told from time to time how many runs are done.
	Progress func(done, of int)
}

// Cell is the runs of a pair, in order.
type Cell struct {
	A, B    natlab.Preset // A asks for B
	Results []Result
}

// Run does all runs. The cells are row by row, a row for each preset that asks.
func (g Grid) Run(ctx context.Context) ([]Cell, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var cells []Cell
	for _, a := range g.Presets {
		for _, b := range g.Presets {
			cells = append(cells, Cell{a, b, make([]Result, g.Runs)})
		}
	}
	all := len(cells) * g.Runs
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range g.workers() {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= all {
					return
				}
				// A run of each pair before the second of any: an early look at the
				// results has something of all.
				c, n := &cells[i%len(cells)], i/len(cells)
				r, err := g.punch(ctx, g.Config(c.A, c.B, n))
				if err != nil {
					cancel(err)
					return
				}
				c.Results[n] = r
				if d := int(done.Add(1)); g.Progress != nil {
					g.Progress(d, all)
				}
			}
		})
	}
	wg.Wait()
	return cells, context.Cause(ctx)
}

func (g Grid) workers() int {
	if g.Workers > 0 {
		return g.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// Again does a run once more, shown to an observer.
func (g Grid) Again(ctx context.Context, c Config, o natlab.Observer) (Result, error) {
	c.Observe = o
	return g.punch(ctx, c)
}

func (g Grid) punch(ctx context.Context, c Config) (Result, error) {
	if g.Punch != nil {
		return g.Punch(ctx, c)
	}
	return Punch(c)
}

// Config is the n-th run of a pair, from 0. It depends on nothing else: not on which
// pairs there are besides.
func (g Grid) Config(a, b natlab.Preset, n int) Config {
	o := g.Options
	o.PresetA, o.PresetB, o.Seed = a, b, seedOf(g.Seed, a, b, n)
	return Config{Topology: natlab.TwoHomes(o), Limit: g.Limit, Transports: g.Transports}
}

func seedOf(seed uint64, a, b natlab.Preset, n int) uint64 {
	h := sha256.New()
	var v [16]byte
	binary.BigEndian.PutUint64(v[:], seed)
	binary.BigEndian.PutUint64(v[8:], uint64(n))
	_, _ = h.Write(v[:])
	_, _ = h.Write([]byte(string(a) + "/" + string(b)))
	return binary.BigEndian.Uint64(h.Sum(nil)) | 1 // 0 would be another by chance
}

var errNoPath = errors.New("matrix: no such host")

// LimitOf is RTT(A,S) + RTT(A,B) of the links alone: before that no hole can be.
func LimitOf(t natlab.Topology) (time.Duration, error) {
	as, err := oneWay(t, "a", "server")
	if err != nil {
		return 0, err
	}
	ab, err := oneWay(t, "a", "b")
	return 2 * (as + ab), err
}

// oneWay is the time from one host to another, on the shortest way.
func oneWay(t natlab.Topology, from, to string) (time.Duration, error) {
	up, down := climb(t, from), climb(t, to)
	if up == nil || down == nil {
		return 0, errNoPath
	}
	for len(up) > 0 && len(down) > 0 && up[len(up)-1].name == down[len(down)-1].name {
		up, down = up[:len(up)-1], down[:len(down)-1]
	}
	var sum time.Duration
	for _, s := range append(up, down...) {
		sum += s.delay
	}
	return sum, nil
}

// ascent is a link on the way from a host to the core.
type ascent struct {
	name  string
	delay time.Duration
}

func climb(t natlab.Topology, host string) (way []ascent) {
	behind := ""
	for _, h := range t.Hosts {
		if h.Name == host {
			way, behind = append(way, ascent{h.Name, h.Link.Delay}), h.Behind
		}
	}
	for i := len(t.Boxes) - 1; i >= 0 && len(way) > 0; i-- {
		if b := t.Boxes[i]; b.Name == behind {
			way, behind = append(way, ascent{b.Name, b.Link.Delay}), b.Behind
		}
	}
	return way
}
