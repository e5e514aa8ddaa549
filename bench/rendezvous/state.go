package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// measureState steps a registry, and times nothing but its steps.
func measureState(r *result, n int, relay time.Duration) error {
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
	}
	f, err := newFleet(n, key.ID(), netip.MustParseAddrPort("192.0.2.1:3478"))
	if err != nil {
		return err
	}
	index := make(map[netip.AddrPort]int, n)
	for i := range n {
		index[at(i)] = i
	}
	now := time.Now()
	registry := rendezvous.NewRegistry(key, noLimits, nil)
	got, told := newAnswers(n), newAnswers(n)
	var out []rendezvous.Outgoing
	// exchange sends what every node wants to send, and keeps the answers: those
	// to the sender in got, those to others in told.
	exchange := func() time.Duration {
		var spent time.Duration
		for i := range n {
			begin := time.Now()
			out, _ = registry.Step(now, 0, at(i), f.out[i], out[:0])
			spent += time.Since(begin)
			for _, o := range out {
				if to := index[o.To]; to == i {
					got.put(i, o.Data)
				} else {
					told.put(to, o.Data)
				}
			}
		}
		return spent
	}
	f.hello(now)
	spent := exchange()
	f.each(func(i int) { f.receive(i, now, got.get(i)) })
	before := heap()
	spent += exchange()
	r.State.HeapPerNode = float64(heap()-before) / float64(n)
	r.State.Registrations = float64(n) / spent.Seconds()
	f.each(func(i int) { f.receive(i, now, got.get(i)) })
	if err := f.check(rendezvous.AgentRegistered); err != nil {
		return err
	}

	spent = 0
	for range 3 {
		f.ask(now)
		spent += exchange()
		f.each(func(i int) { f.receive(i, now, got.get(i)) })
		if err := f.check(rendezvous.AgentIntroduced); err != nil {
			return err
		}
		f.each(func(i int) { f.receive(i, now, told.get(i)) })
		if err := f.check(rendezvous.AgentAsked); err != nil {
			return err
		}
		spent += exchange()
		now = now.Add(time.Minute)
		registry.Tick(now, nil)
	}
	r.State.Introductions = 3 * float64(n) / spent.Seconds()
	if s := registry.Stats(); s.Introductions != 3*uint64(n) || s.Registrations != n || s.Channels != n {
		return fmt.Errorf("the server counts otherwise: %+v", s)
	}

	// Node 0's channel to node 1 was the first that it asked for.
	packet := wire.AppendChannelData(nil, wire.FirstAskedChannel, make([]byte, packetSize))
	packets, begin := 0, time.Now()
	for time.Since(begin) < relay {
		for range 1000 {
			wire.PutChannelHeader(packet, wire.FirstAskedChannel, packetSize)
			out, _ = registry.Step(now, 0, at(0), packet, out[:0])
		}
		packets += 1000
	}
	r.State.Packets = float64(packets) / time.Since(begin).Seconds()
	if s := registry.Stats(); s.RelayedPackets != uint64(packets) {
		return fmt.Errorf("the server counts otherwise: %+v", s)
	}
	runtime.KeepAlive(f)
	return nil
}

// heap is how many bytes are in use, after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
