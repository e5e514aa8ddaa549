package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"bodkin/peer"
	"bodkin/punch"

	"github.com/quic-go/quic-go"
)

// Class is a route class: what QUIC sees as a peer's port.
type Class = punch.Transport

// Config is what a Manager is made of.
type Config struct {
	Key    peer.Key
	Accept net.PacketConn // for the connections of others
	Dial   net.PacketConn // for our own
	// Moved is the packet connection of a class, for our own connections that
	// have migrated to it.
	Moved func(Class) net.PacketConn
	// Identify says whose overlay address that is, and Canonical which one of
	// the peer's addresses stands for all.
	Identify  func(netip.Addr) (peer.ID, bool)
	Canonical func(netip.Addr) netip.Addr
	// Best is the class of the best route to a peer.
	Best func(netip.Addr) Class
	// Admit decides who may connect at all, Allow to which service. A nil one
	// lets everybody in.
	Admit func(peer.ID) bool
	Allow func(id peer.ID, service string) bool
	// TCP is told that a peer will hand a TCP connection over, for a service: see
	// [Manager.AskTCP]. It reports whether somebody takes it.
	TCP func(id peer.ID, service string, token [TokenSize]byte) bool
	// Again sends the last packet to every peer once more.
	Again func()
	// Opened and Closed tell of sessions with the peer of an overlay address.
	Opened, Closed func(overlay netip.Addr)
	Logger         *slog.Logger
}

// Manager has the sessions of a node.
type Manager struct {
	cfg    Config
	cert   tls.Certificate
	accept *quic.Transport
	dial   *quic.Transport
	moved  map[Class]*quic.Transport

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	sessions  map[peer.ID][]*session
	dialling  map[netip.Addr]*dialling
	listeners map[string]*Listener
	packets   map[string]*PacketListener
}

// dialling is a connection under way that several callers wait for.
type dialling struct {
	done   chan struct{}
	s      *session
	err    error
	gaveUp bool // the caller that dialled, not the connection, was at an end
}

var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("node is closed")
	// ErrNoAnswer is returned by Dial and Ping when the peer was introduced and
	// says nothing.
	ErrNoAnswer = errors.New("peer does not answer: it may just have gone; try again")
	// ErrServiceTaken is returned by Listen for a service that has a listener.
	ErrServiceTaken = errors.New("service has a listener already")
)

// packetSize is QUIC's on a path that it has just moved to: with a ChannelData header,
// UDP and IPv6 it fits 1280 bytes. From there quic-go tries what passes (RFC 8899), up
// to 1452, and begins anew with the next move. It never shrinks the size while it
// stays: package path asks whether packets of the size in use arrive, and leaves a
// route where they do not.
const packetSize = 1228

// idleTimeout is how long an outage may last that sessions survive. That an open
// connection on which nothing happens is not ended by it takes a packet now and then.
const idleTimeout = 10 * time.Minute

const (
	// maxStreams is how many streams of a peer are open at once; the next one
	// waits there.
	maxStreams = 1 << 13
	// maxSessions bounds the connections of one peer: two where both dialled at
	// once, and those of other processes with its key.
	maxSessions = 32
)

// quicSilence keeps quic-go from writing to standard error that the system gives
// smaller buffers than it wishes for; ours are sock's affair.
const quicSilence = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"

var silenceQUIC = sync.OnceFunc(func() {
	if _, set := os.LookupEnv(quicSilence); !set {
		_ = os.Setenv(quicSilence, "true")
	}
})

func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           15 * time.Second,
		MaxIdleTimeout:                 idleTimeout, // path heals; keepalives are path's
		KeepAlivePeriod:                idleTimeout / 2,
		InitialStreamReceiveWindow:     2 << 20,
		MaxStreamReceiveWindow:         32 << 20,
		InitialConnectionReceiveWindow: 4 << 20,
		MaxConnectionReceiveWindow:     64 << 20,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
		InitialPacketSize:              packetSize,
		EnableDatagrams:                true,
	}
}

// NewManager makes a Manager and begins to accept.
func NewManager(cfg Config) (*Manager, error) {
	silenceQUIC()
	cert, err := certificate(cfg.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		cfg: cfg, cert: cert,
		moved:     make(map[Class]*quic.Transport),
		sessions:  make(map[peer.ID][]*session),
		dialling:  make(map[netip.Addr]*dialling),
		listeners: make(map[string]*Listener),
		packets:   make(map[string]*PacketListener),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.accept = m.transport(cfg.Accept, false)
	m.dial = m.transport(cfg.Dial, true)
	l, err := m.accept.Listen(tlsConfig(cert, peer.ID{}), quicConfig())
	if err != nil {
		m.cancel()
		return nil, fmt.Errorf("accept sessions: %w", err)
	}
	m.wg.Go(func() { m.acceptAll(l) })
	return m, nil
}

func (m *Manager) transport(c net.PacketConn, dialled bool) *quic.Transport {
	reset := quic.StatelessResetKey(m.cfg.Key.Derive("quic stateless reset"))
	token := quic.TokenGeneratorKey(m.cfg.Key.Derive("quic token"))
	return &quic.Transport{
		Conn: c, ConnectionIDGenerator: connIDs{dialled}, StatelessResetKey: &reset, TokenGeneratorKey: &token,
	}
}

// movedTo is the transport of a class, made when it is first needed.
func (m *Manager) movedTo(class Class) *quic.Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.moved[class]
	if t == nil && !m.closed {
		t = m.transport(m.cfg.Moved(class), true)
		m.moved[class] = t
	}
	return t
}

// acceptAll takes connections until the Manager is closed.
func (m *Manager) acceptAll(l *quic.Listener) {
	for {
		c, err := l.Accept(m.ctx)
		if err != nil {
			return
		}
		overlay := overlayOf(c.RemoteAddr())
		id, err := identity(c.ConnectionState().TLS)
		if owner, known := m.cfg.Identify(overlay); err == nil && (!known || owner != id) {
			err = ErrWrongPeer
		}
		switch {
		case err != nil:
			m.cfg.Logger.Warn("session refused", "error", err)
			_ = c.CloseWithError(codeWrongPeer, "identity")
		case m.cfg.Admit != nil && !m.cfg.Admit(id):
			_ = c.CloseWithError(codeNotAdmitted, "not allowed")
		case m.sessionsOf(id) >= maxSessions:
			_ = c.CloseWithError(codeTooMany, "too many sessions")
		default:
			m.add(m.newSession(c, id, overlay))
		}
	}
}

func overlayOf(a net.Addr) netip.Addr {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort().Addr()
	}
	return netip.Addr{}
}

func (m *Manager) sessionsOf(id peer.ID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions[id])
}

// begin counts something that Close has to wait for; false if it is too late.
func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.wg.Add(1)
	}
	return !m.closed
}

// add begins a session; false if the Manager is closed.
func (m *Manager) add(s *session) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		_ = s.conn.CloseWithError(codeClosed, "closed")
		return false
	}
	m.sessions[s.id] = append(m.sessions[s.id], s)
	m.wg.Add(1) // done by run
	m.mu.Unlock()
	if m.cfg.Opened != nil {
		m.cfg.Opened(s.overlay)
	}
	s.run()
	return true
}

// remove forgets a session that has ended.
func (m *Manager) remove(s *session) {
	m.mu.Lock()
	left := slices.DeleteFunc(m.sessions[s.id], func(o *session) bool { return o == s })
	if m.sessions[s.id] = left; len(left) == 0 {
		delete(m.sessions, s.id)
	}
	last := !slices.ContainsFunc(left, func(o *session) bool { return m.same(o.overlay, s.overlay) })
	m.mu.Unlock()
	if last && m.cfg.Closed != nil {
		m.cfg.Closed(s.overlay)
	}
}

func (m *Manager) same(a, b netip.Addr) bool {
	return a == b || m.cfg.Canonical != nil && m.cfg.Canonical(a) == m.cfg.Canonical(b)
}

// find is the live session to use for new streams. When both sides dialled at
// once there are two: both sides use the one that the smaller ID dialled.
func (m *Manager) find(id peer.ID, overlay netip.Addr) *session {
	var found *session
	for _, s := range m.sessions[id] {
		if s.conn.Context().Err() == nil && m.same(s.overlay, overlay) && (found == nil || s.bySmaller()) {
			found = s
		}
	}
	return found
}

// session finds or dials a session with the peer.
func (m *Manager) session(ctx context.Context, id peer.ID, remote netip.AddrPort) (*session, error) {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, ErrClosed
		}
		if s := m.find(id, remote.Addr()); s != nil {
			m.mu.Unlock()
			return s, nil
		}
		d := m.dialling[remote.Addr()]
		mine := d == nil
		if mine {
			d = &dialling{done: make(chan struct{})}
			m.dialling[remote.Addr()] = d
		}
		m.mu.Unlock()
		if mine {
			d.s, d.err = m.connect(ctx, id, remote)
			d.gaveUp = d.err != nil && ctx.Err() != nil
			m.mu.Lock()
			delete(m.dialling, remote.Addr())
			m.mu.Unlock()
			close(d.done)
			return d.s, d.err
		}
		select {
		case <-d.done:
			if d.gaveUp && ctx.Err() == nil {
				continue // sooner than we would
			}
			return d.s, d.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (m *Manager) connect(ctx context.Context, id peer.ID, remote netip.AddrPort) (*session, error) {
	c, err := m.dial.Dial(ctx, net.UDPAddrFromAddrPort(remote), tlsConfig(m.cert, id), quicConfig())
	if err != nil {
		if errors.Is(err, ErrWrongPeer) {
			return nil, ErrWrongPeer
		}
		_, idle := errors.AsType[*quic.IdleTimeoutError](err)
		_, slow := errors.AsType[*quic.HandshakeTimeoutError](err)
		if idle || slow {
			return nil, ErrNoAnswer
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := m.newSession(c, id, remote.Addr())
	s.dialled, s.class = true, Class(remote.Port())
	if !m.add(s) {
		return nil, ErrClosed
	}
	if m.cfg.Best != nil {
		s.prefer(m.cfg.Best(s.overlay))
	}
	return s, nil
}

// Prefer says which class is best for a peer now: our connections move there.
func (m *Manager) Prefer(overlay netip.Addr, class Class) {
	m.each(func(s *session) {
		if s.dialled && m.same(s.overlay, overlay) {
			s.prefer(class)
		}
	})
}

// Afresh says that a peer can be reached again after an outage: our connections forget
// what they knew of the way.
func (m *Manager) Afresh(overlay netip.Addr) {
	m.each(func(s *session) {
		if s.dialled && m.same(s.overlay, overlay) {
			s.startAfresh()
		}
	})
}

// CloseSession ends the sessions with a peer's process that is gone.
func (m *Manager) CloseSession(overlay netip.Addr) {
	m.each(func(s *session) {
		if m.same(s.overlay, overlay) {
			_ = s.conn.CloseWithError(codeRestarted, "the peer restarted")
		}
	})
}

// Count is how many sessions there are with a peer.
func (m *Manager) Count(overlay netip.Addr) (n int) {
	m.each(func(s *session) {
		if m.same(s.overlay, overlay) {
			n++
		}
	})
	return n
}

// each does f for every session, outside of the lock.
func (m *Manager) each(f func(*session)) {
	m.mu.Lock()
	var all []*session
	for _, of := range m.sessions {
		all = append(all, of...)
	}
	m.mu.Unlock()
	for _, s := range all {
		f(s)
	}
}

const (
	// goodbyes are how often CONNECTION_CLOSE leaves: nobody will be there to
	// repeat it, and a peer that misses it waits for us. With 10% loss on both
	// access links four in a row get lost once in 770 times.
	goodbyes     = 4
	goodbyePause = 15 * time.Millisecond
)

// sayAgain repeats the last packet of each session.
func (m *Manager) sayAgain() {
	if m.cfg.Again == nil {
		return
	}
	for range goodbyes - 1 {
		time.Sleep(goodbyePause)
		m.cfg.Again()
	}
}

// Close ends every session and waits until nothing of them runs any more.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	listeners, packets := m.listeners, m.packets
	m.listeners, m.packets = nil, nil
	m.mu.Unlock()
	for _, l := range listeners {
		l.end()
	}
	for _, l := range packets {
		l.end()
	}
	open := false
	m.each(func(s *session) {
		open = true
		_ = s.conn.CloseWithError(codeClosed, "closed")
	})
	if open {
		m.sayAgain()
	}
	m.cancel()
	// CONNECTION_CLOSE has left with CloseWithError: the transports can go.
	for _, t := range m.moved {
		_ = t.Close()
	}
	err := errors.Join(m.dial.Close(), m.accept.Close())
	m.wg.Wait()
	return err
}
