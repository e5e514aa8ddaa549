package rendezvous_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"bodkin/peer"
	"bodkin/rendezvous"
)

// A server inside another program. Its key belongs into a file, with
// peer.LoadOrCreateKey: nodes know the server by it.
func ExampleServer() {
	key, err := peer.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key:    key,
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Limits: rendezvous.Limits{RelayPerPair: 20_000_000}, // bit/s, each way
	})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(ctx) }()

	// What nodes need: bodkin.Config.Server, or --server on the command line.
	url := server.URL("rendezvous.example.org")
	fmt.Println(url.Host, url.ID == server.ID())

	cancel()
	fmt.Println(<-done, server.Stats().Registrations)
	// Output:
	// rendezvous.example.org true
	// <nil> 0
}

// A server's URL has all that a node must know: where it is, and by its key, who.
func ExampleParseURL() {
	url, err := rendezvous.ParseURL("bodkin://rendezvous.example.org/pq2uo3g2mrdytipqoiormpffseq63tsogoasboz6kuul53v2jl3q")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(url.Host, url.Port, url.ID.Short())

	_, err = rendezvous.ParseURL("bodkin://rendezvous.example.org:3478")
	fmt.Println(err != nil)
	// Output:
	// rendezvous.example.org 3478 pq2uo3g2mr
	// true
}
