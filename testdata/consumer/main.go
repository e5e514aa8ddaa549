// Command consumer is what somebody else's module might do with the library: a
// server and two nodes, and a question from one to the other.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/signal"

	"bodkin"
	"bodkin/peer"
	"bodkin/rendezvous"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	answer, err := talk(ctx, world{address: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)
}

// world is where the three of them live: on this machine, or in a lab.
type world struct {
	server, a, b bodkin.Network
	address      netip.Addr // the server's
}

// talk has a ask b something, and waits until they talk directly.
func talk(ctx context.Context, w world) (answer string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key, err := peer.GenerateKey()
	if err != nil {
		return "", err
	}
	server, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Network: w.server, Listen: []netip.AddrPort{netip.AddrPortFrom(w.address, 0)},
	})
	if err != nil {
		return "", err
	}
	go func() { _ = server.Serve(ctx) }()
	url := server.URL(w.address.String()).String()

	a, err := start(ctx, url, w.a)
	if err != nil {
		return "", err
	}
	defer a.Close()
	b, err := start(ctx, url, w.b)
	if err != nil {
		return "", err
	}
	defer b.Close()
	if err := greet(b); err != nil {
		return "", err
	}
	if err := b.WaitRegistered(ctx); err != nil {
		return "", err
	}

	events := a.Events(ctx)
	conn, err := a.Dial(ctx, b.ID(), "greet")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "world"); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil {
		return "", err
	}
	said, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	for e := range events {
		if e.Kind == bodkin.EventSwitched && e.Route.Direct() {
			return fmt.Sprintf("%s, over %s", said, e.Route.Transport), nil
		}
	}
	return "", errors.New("no direct route")
}

func start(ctx context.Context, url string, network bodkin.Network) (*bodkin.Node, error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, err
	}
	return bodkin.Start(ctx, bodkin.Config{Key: key, Server: url, Network: network})
}

// greet answers each name with a greeting.
func greet(n *bodkin.Node) error {
	l, err := n.Listen("greet")
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			name, _ := io.ReadAll(conn)
			_, _ = fmt.Fprintf(conn, "hello, %s", name)
			_ = conn.Close()
		}
	}()
	return nil
}
