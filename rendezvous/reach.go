package rendezvous

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// Why a port could not be checked.
var (
	// ErrNoAnswer: the server is silent.
	ErrNoAnswer = errors.New("the server does not answer")
	// ErrCannotCheck: the server does not send answers to other ports.
	ErrCannotCheck = errors.New("the server cannot send to other ports; it is older than this program, or another one")
)

const (
	// reachTries is how often a packet is asked for, one each reachEvery: one in
	// ten that is lost must not look like a closed port.
	reachTries = 5
	reachEvery = 400 * time.Millisecond
)

// Reach finds out whether packets from outside arrive: the server at that endpoint
// sends one to an external endpoint, as RFC 5780 §7.3's RESPONSE-PORT lets it, and
// at, an otherwise unused UDP socket of ours, should receive it. That the server
// asked for it does not open the port: another socket does.
//
// A server sends only to the address that asks. Seen is the one that it saw; if
// that is not the external endpoint's, nothing was checked, and there is another
// NAT in the way, or another way out.
func Reach(ctx context.Context, network sock.Network, server netip.AddrPort, at net.PacketConn, external netip.AddrPort) (seen netip.Addr, arrived bool, err error) {
	local, ok := at.LocalAddr().(*net.UDPAddr)
	if !ok {
		return seen, false, fmt.Errorf("check of a port: %v is no UDP socket", at.LocalAddr())
	}
	family := "udp4"
	if server.Addr().Is6() {
		family = "udp6"
	}
	beside, err := network.ListenPacket(ctx, family, netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), 0))
	if err != nil {
		return seen, false, fmt.Errorf("check of a port: %w", err)
	}
	defer func() { _ = beside.Close() }()
	a, err := bindingAnswer(ctx, beside, beside, server, wire.BindingRequest{})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return seen, false, ErrNoAnswer
	case err != nil:
		return seen, false, err
	}
	if seen = a.Mapped.Addr(); seen != external.Addr() {
		return seen, false, nil
	}
	_, err = bindingAnswer(ctx, beside, at, server, wire.BindingRequest{ResponsePort: external.Port()})
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return seen, err == nil, err
	}
	return seen, false, nil
}

// bindingAnswer asks by one socket and waits at one, the same or another. It is
// os.ErrDeadlineExceeded if nothing came.
func bindingAnswer(ctx context.Context, by, at net.PacketConn, server netip.AddrPort, q wire.BindingRequest) (wire.BindingAnswer, error) {
	if _, err := rand.Read(q.ID[:]); err != nil {
		return wire.BindingAnswer{}, err
	}
	for range reachTries {
		if _, err := by.WriteTo(q.Append(nil), net.UDPAddrFromAddrPort(server)); err != nil {
			return wire.BindingAnswer{}, fmt.Errorf("ask %v: %w", server, err)
		}
		a, err := awaitBinding(ctx, at, server.Addr(), q.ID)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return a, err
		}
		if by == at {
			continue
		}
		// A server that does not know the attribute says so to who asked.
		if _, err := awaitBinding(ctx, by, server.Addr(), q.ID); err == nil || errors.Is(err, ErrCannotCheck) {
			return a, ErrCannotCheck
		}
	}
	return wire.BindingAnswer{}, os.ErrDeadlineExceeded
}

// awaitBinding waits a while for the answer to a request.
func awaitBinding(ctx context.Context, at net.PacketConn, server netip.Addr, id wire.TransactionID) (wire.BindingAnswer, error) {
	if err := at.SetReadDeadline(time.Now().Add(reachEvery)); err != nil {
		return wire.BindingAnswer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = at.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 1500)
	for {
		n, from, err := at.ReadFrom(b)
		if ctx.Err() != nil {
			return wire.BindingAnswer{}, ctx.Err()
		}
		if err != nil {
			return wire.BindingAnswer{}, err
		}
		u, ok := from.(*net.UDPAddr)
		m := &stun.Message{Raw: b[:n]}
		if !ok || u.AddrPort().Addr().Unmap() != server || m.Decode() != nil || m.TransactionID != id {
			continue
		}
		a, err := wire.ParseBindingAnswer(m)
		switch {
		case err != nil:
			continue
		case a.Code != 0:
			return a, fmt.Errorf("%w (error %d)", ErrCannotCheck, a.Code)
		}
		return a, nil
	}
}
