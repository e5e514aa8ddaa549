package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/punch"

	"github.com/quic-go/quic-go/quicvarint"
)

func (n *node) listenPacket(t *testing.T, service string) *PacketListener {
	t.Helper()
	l, err := n.ListenPacket(service)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) flow(t *testing.T, to *node, service string) *PacketFlow {
	t.Helper()
	f, err := n.DialPacket(t.Context(), to.id(), to.at(), service)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustSend(t *testing.T, f *PacketFlow, s string) {
	t.Helper()
	if n, err := f.Write([]byte(s)); n != len(s) || err != nil {
		t.Errorf("sent %d bytes, %v", n, err)
	}
}

func mustReceive(t *testing.T, l *PacketListener, want string) net.Addr {
	t.Helper()
	b := make([]byte, MaxDatagram)
	n, from, err := l.ReadFrom(b)
	if err != nil || string(b[:n]) != want {
		t.Errorf("received %q, %v, want %q", b[:n], err, want)
	}
	return from
}

func TestDatagramsPassBothWays(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "dns")
		one, two := a.flow(t, b, "dns"), a.flow(t, b, "dns")
		if one.Peer() != b.id() || one.LocalAddr().(Addr).Peer != a.id() || l.LocalAddr().(Addr).Service != "dns" {
			t.Errorf("addresses %v %v %v", one.LocalAddr(), one.RemoteAddr(), l.LocalAddr())
		}
		mustSend(t, one, "question one")
		from := mustReceive(t, l, "question one")
		if from.(Addr).Peer != a.id() {
			t.Errorf("from %v", from)
		}
		mustSend(t, two, "question two")
		other := mustReceive(t, l, "question two")
		if from == other {
			t.Error("two flows have one address")
		}
		for to, answer := range map[net.Addr]string{from: "answer one", other: "answer two"} {
			if _, err := l.WriteTo([]byte(answer), to); err != nil {
				t.Error(err)
			}
		}
		for f, want := range map[*PacketFlow]string{one: "answer one", two: "answer two"} {
			b := make([]byte, 100)
			if n, err := f.Read(b); err != nil || string(b[:n]) != want {
				t.Errorf("got %q, %v", b[:n], err)
			}
		}
		if _, err := l.WriteTo(nil, &net.UDPAddr{}); err == nil {
			t.Error("wrote to an address of another kind")
		}
		if _, err := l.WriteTo(nil, one.RemoteAddr()); err == nil {
			t.Error("wrote to a flow that is not the listener's")
		}
	})
}

// The largest datagram fits whatever its flow's ID, and whatever the route.
func TestLargestDatagramAlwaysFits(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "big")
		f := a.flow(t, b, "big")
		big := string(bytes.Repeat([]byte{7}, MaxDatagram))
		for _, class := range []Class{punch.Relay, punch.UDP, punch.Relay} {
			a.Prefer(b.overlay, class)
			time.Sleep(time.Minute)
			mustSend(t, f, big)
			to := mustReceive(t, l, big)
			if _, err := l.WriteTo([]byte(big), to); err != nil {
				t.Error(err)
			}
			if n, err := f.Read(make([]byte, MaxDatagram)); n != MaxDatagram || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			longest := quicvarint.Append(nil, 1<<62-1)
			for _, s := range []*session{f.s, to.(Addr).flow.s} {
				if err := s.conn.SendDatagram(append(longest, big...)); err != nil {
					t.Errorf("over %v, with the longest flow ID: %v", class, err)
				}
			}
		}
		if _, err := f.Write(make([]byte, MaxDatagram+1)); err == nil {
			t.Error("a larger one was sent")
		}
		mustSend(t, f, "")
		mustReceive(t, l, "")
	})
}

// A datagram may overtake the stream that opens its flow.
func TestDatagramThatComesBeforeItsFlow(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "early")
		first := a.flow(t, b, "early")
		mustSend(t, first, "first")
		mustReceive(t, l, "first")
		stream, err := first.s.conn.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id := uint64(stream.StreamID())
		for i := range 5 {
			if err := first.s.conn.SendDatagram(append(appendFlow(nil, id), fmt.Sprint("early ", i)...)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		mustWrite(t, stream, string(appendHeader(nil, kindDatagram, "early")))
		for i := range 5 {
			from := mustReceive(t, l, fmt.Sprint("early ", i))
			if from.(Addr).flow.id != id {
				t.Errorf("of flow %d", from.(Addr).flow.id)
			}
		}
	})
}

func TestDatagramsOfNoFlowAreFew(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "x")
		f := a.flow(t, b, "x")
		mustSend(t, f, "hello")
		theirs := mustReceive(t, l, "hello").(Addr).flow.s
		for range 10 * maxEarly {
			if err := f.s.conn.SendDatagram(append(appendFlow(nil, 4000), 1)); err != nil {
				t.Fatal(err)
			}
			_ = f.s.conn.SendDatagram(nil) // no ID at all
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		theirs.mu.Lock()
		defer theirs.mu.Unlock()
		if len(theirs.early) != maxEarly {
			t.Errorf("%d are kept", len(theirs.early))
		}
	})
}

func TestFlowEndsOnBothSides(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "x")
		one, two := a.flow(t, b, "x"), a.flow(t, b, "x")
		mustSend(t, one, "one")
		at := mustReceive(t, l, "one").(Addr).flow
		mustSend(t, two, "two")
		mustReceive(t, l, "two")
		_ = one.Close()
		_ = one.Close()
		<-at.done
		if _, err := l.WriteTo([]byte("x"), at.RemoteAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("wrote to a flow that has ended: %v", err)
		}
		if _, err := one.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("wrote to a closed flow: %v", err)
		}
		if _, err := one.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a closed flow: %v", err)
		}
		// The listener's end is that of its flows.
		_ = l.Close()
		if _, err := two.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a flow without a listener: %v", err)
		}
		if _, _, err := l.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a closed listener: %v", err)
		}
		for _, s := range []*session{one.s, at.s} {
			s.mu.Lock()
			if len(s.flows) != 0 {
				t.Errorf("%d flows are left", len(s.flows))
			}
			s.mu.Unlock()
		}
		// Nobody listens: the refusal ends the flow.
		three := a.flow(t, b, "x")
		if _, err := three.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a refused flow: %v", err)
		}
	})
}

func TestReaderThatIsBehindMissesTheNewest(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "x")
		f := a.flow(t, b, "x")
		for i := range flowQueue + 20 {
			mustSend(t, f, fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		for i := range flowQueue {
			mustReceive(t, l, fmt.Sprint(i))
		}
		if n := l.inbox.Dropped.Load(); n != 20 {
			t.Errorf("%d dropped", n)
		}
	})
}

func TestDatagramDeadlines(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listenPacket(t, "x")
		f := a.flow(t, b, "x")
		begin := time.Now()
		_ = l.SetDeadline(begin.Add(time.Second))
		if _, _, err := l.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if _, err := l.WriteTo(nil, f.RemoteAddr()); err == nil {
			t.Error("wrote after the deadline")
		}
		// It moves, away and near, while somebody reads.
		begin = time.Now()
		_ = f.SetReadDeadline(begin.Add(time.Second))
		time.AfterFunc(500*time.Millisecond, func() { _ = f.SetReadDeadline(begin.Add(time.Hour)) })
		time.AfterFunc(2*time.Second, func() { _ = f.SetReadDeadline(begin.Add(3 * time.Second)) })
		if _, err := f.Read(nil); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		// Nothing leaves: the session is at its limit, and Write waits.
		a.hub.block(punch.Relay, true)
		write := func() (err error) {
			for err == nil {
				_, err = f.Write(make([]byte, MaxDatagram))
			}
			return err
		}
		begin = time.Now()
		_ = f.SetWriteDeadline(begin.Add(time.Second))
		if err := write(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		_ = f.SetDeadline(time.Time{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := write(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("ended with %v", err)
			}
		})
		synctest.Wait()
		_ = f.Close()
		wg.Wait()
	})
}

func TestWriteEndsWithTheSession(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		b.listenPacket(t, "x")
		f := a.flow(t, b, "x")
		mustSend(t, f, "x")
		_ = b.Close()
		var err error
		for err == nil {
			_, err = f.Write([]byte("x"))
			time.Sleep(time.Millisecond)
		}
		if _, err := f.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read %v", err)
		}
	})
}

func FuzzCutFlow(f *testing.F) {
	f.Add(appendFlow(nil, 4))
	f.Add(append(appendFlow(nil, 1<<62-1), "payload"...))
	f.Add([]byte{0xc0})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, payload, err := cutFlow(b)
		if err != nil {
			return
		}
		if again, p, err := cutFlow(append(appendFlow(nil, id), payload...)); err != nil || again != id || !bytes.Equal(p, payload) {
			t.Errorf("%x became %d %x, %v", b, again, p, err)
		}
	})
}

// Datagrams beside a connection's stream go both ways, outlive either direction of the
// stream, and end when they are closed or the session ends.
func TestPacketsBesideAStream(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "game")
		near := a.connect(t, b, "game")
		far, err := l.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		here, there := near.Packets(), far.Packets()
		if near.Packets() != here {
			t.Error("a second call made others")
		}
		buf := make([]byte, 100)
		for i := range 3 {
			for _, way := range [][2]io.ReadWriteCloser{{here, there}, {there, here}} {
				want := fmt.Sprintf("datagram %d", i)
				if _, err := way[0].Write([]byte(want)); err != nil {
					t.Fatal(err)
				}
				if n, err := way[1].Read(buf); err != nil || string(buf[:n]) != want {
					t.Fatalf("read %q, %v", buf[:n], err)
				}
			}
			switch i {
			case 0:
				_ = near.CloseWrite()
				if _, err := io.ReadAll(far); err != nil {
					t.Error(err)
				}
			case 1:
				_ = far.Close()
			}
		}
		if _, err := here.Write(make([]byte, MaxDatagram+1)); err == nil {
			t.Error("a larger one was sent")
		}
		// What is for nobody any more harms nobody.
		_ = there.Close()
		if _, err := there.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a closed one: %v", err)
		}
		if _, err := here.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		_ = b.Close()
		if _, err := here.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the session ended, and so reading: %v", err)
		}
		late := near.s.flowOf(near)
		if _, err := late.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after the session's end: %v", err)
		}
	})
}
