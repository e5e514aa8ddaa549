package netbed

import (
	"sync"
	"time"

	"bodkin/natlab"

	"golang.org/x/sys/unix"
)

// core is the topology's fabric at work in real time: frames come from the ports,
// and leave by them when their time has come.
type core struct {
	base   time.Time
	ends   []*port // by the fabric's number; nil where the kernel has the link
	wakeFD int
	done   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	fabric *natlab.Fabric
	// asleep says that the thread sleeps, until wakes if that is not zero.
	asleep bool
	wakes  time.Time
	closed bool
}

// newCore makes the fabric; nothing moves before start.
func newCore(t natlab.Topology, bed Bed) (*core, error) {
	c := &core{base: time.Now(), done: make(chan struct{})}
	var err error
	c.fabric, err = natlab.NewFabric(natlab.FabricConfig{
		Topology: t, Start: c.base, Header: frameHeader, Outer: bed == Kernel,
	})
	if err != nil {
		return nil, err
	}
	c.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	return c, err
}

// attach makes a port an end of the fabric.
func (c *core) attach(at natlab.Port, p *port) {
	for len(c.ends) <= int(at) {
		c.ends = append(c.ends, nil)
	}
	c.ends[at] = p
}

// start begins to move frames.
func (c *core) start() {
	go c.run()
	for at, p := range c.ends {
		if p != nil {
			c.wg.Go(func() { c.read(natlab.Port(at), p) })
		}
	}
}

// read injects each frame that a port receives, at the time at which it came:
// what the reader is late by does not add to the link's delay.
func (c *core) read(at natlab.Port, p *port) {
	each := func(age int64, frame []byte) {
		when := time.Now().Add(-time.Duration(age))
		c.mu.Lock()
		c.fabric.Inject(when, at, frame)
		c.planned()
		c.mu.Unlock()
	}
	for p.read(each) == nil { // an error: closed
	}
	p.ring.close()
}

// with does something with the fabric.
func (c *core) with(f func(*natlab.Fabric)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.fabric)
	c.planned()
}

// undo is a function that undoes something in the fabric.
func (c *core) undo(f func()) func() {
	return func() { c.with(func(*natlab.Fabric) { f() }) }
}

// lost is how many packets the machine was too slow for.
func (c *core) lost() (n uint64) {
	c.with(func(f *natlab.Fabric) { n = f.Overflowed() })
	for _, p := range c.ends {
		if p != nil {
			n += p.lost()
		}
	}
	return n
}

// close ends all reading and sending; packets on their way are lost.
func (c *core) close(started bool) {
	if started {
		c.mu.Lock()
		c.closed = true
		c.wake()
		c.mu.Unlock()
		// The thread writes to ports: it ends first.
		<-c.done
	}
	_ = unix.Close(c.wakeFD)
	for _, p := range c.ends {
		if p != nil {
			p.close()
			if !started {
				p.ring.close()
			}
		}
	}
	c.wg.Wait()
}
