package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// description is as long as that of a node with one address of each family.
var description = make([]byte, 35)

// offer is as long as one with such a description.
var offer = make([]byte, 227)

// fleet is the nodes: an agent each, and what it last wanted to send.
type fleet struct {
	server rendezvous.ServerEndpoint
	keys   []peer.Key
	agents []*rendezvous.Agent
	out    [][]byte                 // what node i sends next
	did    []rendezvous.AgentAction // the last thing that node i had to say, sends aside
}

// newFleet makes n nodes of the server's.
func newFleet(n int, server peer.ID, endpoint netip.AddrPort) (*fleet, error) {
	f := &fleet{
		server: rendezvous.ServerEndpoint{Local: 1, Addr: endpoint},
		keys:   make([]peer.Key, n), agents: make([]*rendezvous.Agent, n),
		out: make([][]byte, n), did: make([]rendezvous.AgentAction, n),
	}
	errs := make([]error, n)
	f.each(func(i int) {
		f.keys[i] = peer.NewKey(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
		f.agents[i], errs[i] = rendezvous.NewAgent(rendezvous.AgentConfig{Key: f.keys[i], Server: server, Instance: uint64(i + 1)})
	})
	return f, errors.Join(errs...)
}

// each does something for every node, on all cores.
func (f *fleet) each(do func(i int)) {
	var wg sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for c := range cores {
		wg.Go(func() {
			for i := c; i < len(f.agents); i += cores {
				do(i)
			}
		})
	}
	wg.Wait()
}

// step steps the agent of node i.
func (f *fleet) step(i int, now time.Time, in rendezvous.AgentInput) {
	actions, _ := f.agents[i].Step(now, in, nil)
	f.out[i] = nil
	for _, a := range actions {
		if a.Op == rendezvous.AgentSend {
			f.out[i] = a.Data
		} else {
			f.did[i] = a
		}
	}
}

// hello has every node begin to register.
func (f *fleet) hello(now time.Time) {
	f.each(func(i int) {
		f.step(i, now, rendezvous.AgentInput{Op: rendezvous.AgentUpdate, Description: description, Accepting: true})
		f.step(i, now, rendezvous.AgentInput{Op: rendezvous.AgentServers, Servers: []rendezvous.ServerEndpoint{f.server}})
	})
}

// receive gives node i a packet of the server's.
func (f *fleet) receive(i int, now time.Time, b []byte) {
	f.step(i, now, rendezvous.AgentInput{Op: rendezvous.AgentPacket, From: f.server.Addr, Data: b})
}

// ask has every node ask for the next one.
func (f *fleet) ask(now time.Time) {
	f.each(func(i int) {
		f.step(i, now, rendezvous.AgentInput{
			Op: rendezvous.AgentAsk, Token: uint64(i), Target: f.keys[f.next(i)].ID(), Offer: offer,
		})
	})
}

func (f *fleet) next(i int) int { return (i + 1) % len(f.agents) }

// check finds a node that has not had what it should have.
func (f *fleet) check(op rendezvous.AgentOp) error {
	for i := range f.did {
		if f.did[i].Op != op {
			return fmt.Errorf("node %d: %d instead of %d: %w", i, f.did[i].Op, op, f.did[i].Err)
		}
	}
	return nil
}

// answers keeps what a server sent to each node, in memory that is there before
// anything is measured.
type answers struct {
	sizes []uint16
	bytes [][wire.MaxMessage]byte
}

func newAnswers(n int) *answers {
	a := &answers{make([]uint16, n), make([][wire.MaxMessage]byte, n)}
	for i := range a.bytes {
		a.bytes[i][0] = 1 // the page is there, too
	}
	return a
}

func (a *answers) put(i int, b []byte) { a.sizes[i] = uint16(copy(a.bytes[i][:], b)) }
func (a *answers) get(i int) []byte    { return a.bytes[i][:a.sizes[i]] }
