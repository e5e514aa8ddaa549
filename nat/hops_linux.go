package nat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"bodkin/internal/wire"

	"golang.org/x/sys/unix"
)

// hopTime is how long a router has to answer.
const hopTime = time.Second

// Hops are the routers on the way to an IPv4 endpoint, the nearest first, as far as
// most: each by the address that it says a packet's TTL ended at (RFC 792), not valid
// if it says nothing. The packets are Binding requests, should one arrive. Where the
// system does not show such messages to programs the error is
// [errors.ErrUnsupported].
func Hops(ctx context.Context, n Network, to netip.AddrPort, most int) ([]netip.Addr, error) {
	hops := make([]netip.Addr, most)
	var wait sync.WaitGroup
	defer wait.Wait()
	for i := range hops {
		c, err := n.ListenPacket(ctx, "udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
		if err != nil {
			return nil, err
		}
		udp, ok := c.(*net.UDPConn)
		if !ok {
			_ = c.Close()
			return nil, fmt.Errorf("routers on the way: %w", errors.ErrUnsupported)
		}
		wait.Go(func() {
			defer func() { _ = udp.Close() }()
			_ = udp.SetReadDeadline(time.Now().Add(hopTime))
			stop := context.AfterFunc(ctx, func() { _ = udp.SetReadDeadline(time.Unix(1, 0)) })
			defer stop()
			hops[i] = hop(udp, to, i+1)
		})
	}
	wait.Wait()
	return hops, ctx.Err()
}

// hop is who takes the last of a packet's TTL.
func hop(c *net.UDPConn, to netip.AddrPort, ttl int) (router netip.Addr) {
	raw, err := c.SyscallConn()
	if err != nil {
		return router
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl),
		)
	})
	if err = errors.Join(err, failed); err != nil {
		return router
	}
	if _, err := c.WriteToUDPAddrPort(wire.BindingRequest{ID: wire.TransactionID{byte(ttl)}}.Append(nil), to); err != nil {
		return router
	}
	data, control := make([]byte, 512), make([]byte, 512)
	_ = raw.Read(func(fd uintptr) bool {
		_, n, _, _, err := unix.Recvmsg(int(fd), data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, syscall.EAGAIN) {
			// An answer may have come: from further on there is nothing to learn.
			_, _, _, _, err := unix.Recvmsg(int(fd), data, nil, unix.MSG_DONTWAIT)
			return !errors.Is(err, syscall.EAGAIN)
		}
		if err == nil {
			router = exceeded(control[:n])
		}
		return true
	})
	return router
}

// exceeded is who sent the ICMP error time exceeded that a control message holds (a
// sock_extended_err and the sender's sockaddr_in), not valid if it holds another one.
func exceeded(control []byte) (router netip.Addr) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return router
	}
	const timeExceeded, address = 11, 16 + 4
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR && len(m.Data) >= address+4 &&
			m.Data[4] == unix.SO_EE_ORIGIN_ICMP && m.Data[5] == timeExceeded {
			router, _ = netip.AddrFromSlice(m.Data[address : address+4])
		}
	}
	return router
}
