package main

import (
	"context"
	"errors"
	"net"
	"time"

	"bodkin"
	"bodkin/bench/throughput/end"
	"bodkin/internal/session"
	"bodkin/peer"
)

// datagramSize is that of the datagrams: the largest that Bodkin sends.
const datagramSize = session.MaxDatagram

// openBodkin is a whole node at each end, and a route through a hole between them.
func openBodkin(ctx context.Context, cfg end.Config, hello func(string)) (l end.Link, err error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return l, err
	}
	var transports []string
	if cfg.Kind == kindBodkinTCP {
		transports = []string{"tcp"}
	}
	n, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: cfg.Server, Transports: transports})
	if err != nil {
		return l, err
	}
	if cfg.Kind == kindBodkinDatagram {
		l.Packet = datagramSize
	}
	if cfg.Kind == kindBodkinTCP {
		return plainBodkin(ctx, n, cfg, hello, l)
	}
	if cfg.Dial {
		return dialBodkin(ctx, n, cfg.Hello, l)
	}
	return listenBodkin(ctx, n, hello, l)
}

// plainBodkin makes the hole itself the connection.
func plainBodkin(ctx context.Context, n *bodkin.Node, cfg end.Config, hello func(string), l end.Link) (end.Link, error) {
	if cfg.Dial {
		to, err := peer.ParseID(cfg.Hello)
		if err != nil {
			return l, err
		}
		l.Bulk, err = n.DialTCP(ctx, to, "bulk")
		return l, err
	}
	in, err := n.ListenTCP("bulk")
	if err != nil {
		return l, err
	}
	if err := announce(ctx, n, hello); err != nil {
		return l, err
	}
	l.Bulk, err = in.Accept()
	return l, err
}

func dialBodkin(ctx context.Context, n *bodkin.Node, to string, l end.Link) (end.Link, error) {
	id, err := peer.ParseID(to)
	if err != nil {
		return l, err
	}
	if err := untilDirect(ctx, n, id); err != nil {
		return l, err
	}
	if l.Packet > 0 {
		l.Bulk, err = n.DialPacket(ctx, id, "bulk")
		if err == nil {
			_, err = l.Bulk.Write([]byte{0})
		}
		return l, err
	}
	for service, c := range map[string]*net.Conn{"bulk": &l.Bulk, "echo": &l.Echo} {
		if *c, err = n.Dial(ctx, id, service); err != nil {
			return l, err
		}
	}
	return l, nil
}

const (
	directTime = 20 * time.Second
	// settleTime is for the session to follow the route.
	settleTime = time.Second
)

// untilDirect returns when pings take a direct route.
func untilDirect(ctx context.Context, n *bodkin.Node, id peer.ID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, directTime, errors.New("no direct route came about"))
	defer cancel()
	for {
		pong, err := n.Ping(ctx, id)
		if err != nil {
			return err
		}
		if pong.Route.Direct() {
			time.Sleep(settleTime)
			return nil
		}
		time.Sleep(directTime / 1000)
	}
}

func listenBodkin(ctx context.Context, n *bodkin.Node, hello func(string), l end.Link) (end.Link, error) {
	if l.Packet > 0 {
		p, err := n.ListenPacket("bulk")
		if err != nil {
			return l, err
		}
		l.Bulk = packets{from: p}
		return l, announce(ctx, n, hello)
	}
	bulk, err := n.Listen("bulk")
	if err != nil {
		return l, err
	}
	echo, err := n.Listen("echo")
	if err != nil {
		return l, err
	}
	if err := announce(ctx, n, hello); err != nil {
		return l, err
	}
	if l.Bulk, err = bulk.Accept(); err != nil {
		return l, err
	}
	l.Echo, err = echo.Accept()
	return l, err
}

func announce(ctx context.Context, n *bodkin.Node, hello func(string)) error {
	if err := n.WaitRegistered(ctx); err != nil {
		return err
	}
	hello(n.ID().String())
	return nil
}

// packets reads what comes from anybody.
type packets struct {
	net.Conn
	from net.PacketConn
}

// Read returns one datagram.
func (p packets) Read(b []byte) (int, error) {
	n, _, err := p.from.ReadFrom(b)
	return n, err
}
