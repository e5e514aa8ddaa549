package peer_test

import (
	"fmt"
	"os"
	"path/filepath"

	"bodkin/peer"
)

func ExampleParseID() {
	id, err := peer.ParseID("z3gbkb64dxoxffmvdquqrchqsww3sbcndnz5nfxg34df22b32t6a")
	fmt.Println(id.Short(), err)
	_, err = peer.ParseID("example.org")
	fmt.Println(err)
	// Output:
	// z3gbkb64dx <nil>
	// not a peer ID: "example.org" has 11 characters, an ID has 52 (see `bodkin id` on the other machine)
}

// A machine's key is made once and kept.
func ExampleLoadOrCreateKey() {
	dir, err := os.MkdirTemp("", "bodkin")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "node.key")
	first, err := peer.LoadOrCreateKey(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := peer.LoadOrCreateKey(path)
	fmt.Println(first.ID() == second.ID(), err)
	// Output: true <nil>
}

// Two machines that know each other's IDs have a secret, without a word
// between them.
func ExampleSecret_Key() {
	alice, bob := peer.NewKey([32]byte{1}), peer.NewKey([32]byte{2})
	a, _ := alice.Shared(bob.ID())
	b, _ := bob.Shared(alice.ID())
	from, to := alice.ID(), bob.ID()
	fmt.Println(a.Key(nil, "chat", from[:], to[:]) == b.Key(nil, "chat", from[:], to[:]))
	// Output: true
}

// Whoever carries a sealed box learns neither what is in it nor who wrote it;
// the reader knows both.
func ExampleKey_Seal() {
	alice, bob := peer.NewKey([32]byte{1}), peer.NewKey([32]byte{2})
	box, err := alice.Seal(bob.ID(), "letter", nil, []byte("at the old oak, at noon"))
	if err != nil {
		fmt.Println(err)
		return
	}
	from, content, err := bob.Open("letter", nil, box)
	fmt.Printf("%s wrote %q, %v\n", from.Short(), content, err)
	_, _, err = bob.Open("invoice", nil, box)
	fmt.Println(err)
	// Output:
	// z3gbkb64dx wrote "at the old oak, at noon", <nil>
	// sealed box does not open
}

func ExampleOverlay() {
	id := peer.NewKey([32]byte{1}).ID()
	fmt.Println(peer.Overlay(id, 0))
	// Output: fd29:f51b:1489:4e3f:9f91:fd8a:f510:a0a9
}
