package bodkin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"

	"bodkin"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// exampleServer runs a server on this machine, as `bodkin serve` does.
func exampleServer(ctx context.Context) (url string) {
	key, err := peer.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	server, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(ctx) }()
	return server.URL("127.0.0.1").String()
}

// exampleNode starts a node with a new key. A program keeps its key in a file,
// with peer.LoadOrCreateKey: it is who the node is.
func exampleNode(ctx context.Context, url string) *bodkin.Node {
	key, err := peer.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	node, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: url})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

// One node listens, another connects to it: elsewhere these are two machines
// behind two NATs, and the server is on a third.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url := exampleServer(ctx)
	home, away := exampleNode(ctx, url), exampleNode(ctx, url)
	defer func() { _ = home.Close() }()
	defer func() { _ = away.Close() }()

	listener, err := home.Listen("greeting")
	if err != nil {
		log.Fatal(err)
	}
	if err := home.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		name, _ := io.ReadAll(conn)
		_, _ = fmt.Fprintf(conn, "hello, %s", name)
		_ = conn.Close()
	}()

	conn, err := away.Dial(ctx, home.ID(), "greeting")
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.WriteString(conn, "world")
	_ = conn.CloseWrite() // our direction is over; theirs is not
	answer, err := io.ReadAll(conn)
	fmt.Println(string(answer), err)
	// Output: hello, world <nil>
}

func ExampleStart() {
	ctx := context.Background()
	// Made at the first start, and then always the same.
	key, err := peer.LoadOrCreateKey("node.key")
	if err != nil {
		log.Fatal(err)
	}
	friend, err := peer.ParseID("z3gbkb64dxoxffmvdquqrchqsww3sbcndnz5nfxg34df22b32t6a")
	if err != nil {
		log.Fatal(err)
	}
	node, err := bodkin.Start(ctx, bodkin.Config{
		Key:    key,
		Server: "bodkin://rendezvous.example.org:3478/xcxhp6zj6gu5cy6dp4obk25rmffmxrdhjt6hprb6tbzdnv4dfonq",
		Peers:  []peer.ID{friend}, // who may connect, and learn our addresses
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = node.Close() }()
	fmt.Println("others reach us as", node.ID())
}

func ExampleNode_Dial() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node := exampleNode(ctx, exampleServer(ctx))
	defer func() { _ = node.Close() }()

	somebody := peer.NewKey([32]byte{1}).ID()
	_, err := node.Dial(ctx, somebody, "greeting")
	if errors.Is(err, bodkin.ErrNotReachable) {
		fmt.Println("it is offline, uses another server, or does not allow us")
	}
	// Output: it is offline, uses another server, or does not allow us
}

func ExampleNode_Listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node := exampleNode(ctx, exampleServer(ctx))
	defer func() { _ = node.Close() }()

	listener, err := node.Listen("greeting")
	if err != nil {
		log.Fatal(err)
	}
	// From here on the server introduces us to those who ask.
	if err := node.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(node.Status().Services)
	_ = listener.Close()
	// Output: [greeting]
}

func ExampleNode_ListenPacket() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url := exampleServer(ctx)
	home, away := exampleNode(ctx, url), exampleNode(ctx, url)
	defer func() { _ = home.Close() }()
	defer func() { _ = away.Close() }()

	packets, err := home.ListenPacket("echo")
	if err != nil {
		log.Fatal(err)
	}
	if err := home.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(b[:n], from)
		}
	}()

	flow, err := away.DialPacket(ctx, home.ID(), "echo")
	if err != nil {
		log.Fatal(err)
	}
	// A datagram may get lost; on this machine it does not.
	_, _ = flow.Write([]byte("one datagram"))
	b := make([]byte, 1500)
	n, err := flow.Read(b)
	fmt.Println(string(b[:n]), err)
	// Output: one datagram <nil>
}

// Events tell how the connection gets better while it is in use.
func ExampleNode_Events() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url := exampleServer(ctx)
	home, away := exampleNode(ctx, url), exampleNode(ctx, url)
	defer func() { _ = home.Close() }()
	defer func() { _ = away.Close() }()
	if _, err := home.Listen("greeting"); err != nil {
		log.Fatal(err)
	}
	if err := home.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}

	events := away.Events(ctx) // from now on
	if _, err := away.Dial(ctx, home.ID(), "greeting"); err != nil {
		log.Fatal(err)
	}
	for e := range events {
		if e.Kind == bodkin.EventSwitched && e.Route.Direct() {
			fmt.Println("direct, over", e.Route.Transport)
			break
		}
	}
	// Output: direct, over udp
}

func ExampleNode_Status() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node := exampleNode(ctx, exampleServer(ctx))
	defer func() { _ = node.Close() }()
	if err := node.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}

	status := node.Status()
	fmt.Println("registered:", status.Registered)
	for _, endpoint := range status.Observed {
		fmt.Println("the server sees us at", endpoint.Addr())
	}
	// Output:
	// registered: true
	// the server sees us at 127.0.0.1
}

// A code makes two nodes known to each other; then one lets the other in, to one
// service. Somebody tells the code to somebody else in between.
func ExampleNode_Invite() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url := exampleServer(ctx)
	home, away := exampleNode(ctx, url), exampleNode(ctx, url)
	defer func() { _ = home.Close() }()
	defer func() { _ = away.Close() }()

	invitation, err := home.Invite(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = invitation.Close() }()
	joined := make(chan peer.ID, 1)
	go func() {
		id, err := away.Join(ctx, invitation.Code())
		if err != nil {
			log.Fatal(err)
		}
		joined <- id
	}()
	guest, err := invitation.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	end, err := home.Admit(guest, "photos")
	if err != nil {
		log.Fatal(err)
	}
	defer end()
	fmt.Println(guest == away.ID(), <-joined == home.ID())
	// Output: true true
}
