package peer

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// RFC 8032 §7.1: the public key is the ID.
func TestIDsOfRFC8032(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ seed, public string }{
		{
			"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		},
		{
			"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
		},
		{
			"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
		},
	} {
		k := NewKey([32]byte(id(t, c.seed)))
		if got := k.ID(); got != id(t, c.public) {
			t.Errorf("seed %s has ID %x", c.seed, got[:])
		}
		if got := ID(k.Private().Public().(ed25519.PublicKey)); got != k.ID() {
			t.Errorf("seed %s signs as %x", c.seed, got[:])
		}
		// What others compute from the ID, and what belongs to our scalar.
		ours, theirs := k.scalar.PublicKey(), mustX25519(t, k.ID())
		if !bytes.Equal(ours.Bytes(), theirs) {
			t.Errorf("seed %s: X25519 key %x, and %x from its ID", c.seed, ours.Bytes(), theirs)
		}
	}
}

func mustX25519(t *testing.T, p ID) []byte {
	t.Helper()
	u, err := p.x25519()
	if err != nil {
		t.Fatal(err)
	}
	return u.Bytes()
}

func TestGeneratedKeysDiffer(t *testing.T) {
	t.Parallel()
	a, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if a.ID() == b.ID() || a.ID().Check() != nil || a.IsZero() || !(Key{}).IsZero() || !(ID{}).IsZero() {
		t.Errorf("keys %v and %v", a.ID(), b.ID())
	}
}

func TestBothSidesShareOneSecret(t *testing.T) {
	t.Parallel()
	for i := range byte(20) {
		a, b := NewKey(seed(i)), NewKey(seed(i+100))
		x, err := a.Shared(b.ID())
		if err != nil {
			t.Fatal(err)
		}
		if y, err := b.Shared(a.ID()); err != nil || x != y {
			t.Fatalf("secrets %x and %x, %v", x, y, err)
		}
		if z, err := NewKey(seed(i + 200)).Shared(b.ID()); err != nil || x == z {
			t.Fatalf("a third peer has secret %x, %v", z, err)
		}
	}
}

// Other implementations count on these, and so does a key that was stored.
func TestDerivedKeysAreStable(t *testing.T) {
	t.Parallel()
	a, b := NewKey(seed(1)), NewKey(seed(2))
	s, err := a.Shared(b.ID())
	if err != nil {
		t.Fatal(err)
	}
	p, q := a.ID(), b.ID()
	for _, c := range []struct {
		name string
		got  [32]byte
		want string
	}{
		{"shared", s, "4181d7302557342bdb6d061c4b1eebea828ecb625c3368b7111680793307220b"},
		{"plain", s.Key(nil, "test"), "fd04527f922b1d6829589f9aa17eddc17d38792bc2f2bae34656b4ec2c530cd3"},
		{"salted", s.Key([]byte("salt"), "test"), "9bb43c8be7d73cf630e9acf4f0a8e805fbe161cc796cabdaab2211ad3b4ae110"},
		{"bound", s.Key(nil, "test", p[:], q[:]), "8f289171687572958934137458edafb33c1ba46d37c742cecbfd1f2cd796c25f"},
		{"bound the other way", s.Key(nil, "test", q[:], p[:]), "f88a4cd6713ed93896dc3925dd1b1fd70dfe39b33fa06f790e469da85513c9bc"},
		{"own", a.Derive("test"), "7038debee400fb6870e32d56f2d50efaea66fd1d0d6774d09cc9068fbaffdfa9"},
	} {
		if hex.EncodeToString(c.got[:]) != c.want {
			t.Errorf("%s: %x", c.name, c.got)
		}
	}
}

func TestKeysDoNotGetIntoLogs(t *testing.T) {
	t.Parallel()
	k := NewKey(seed(0x5a))
	var log bytes.Buffer
	config := struct {
		Key Key
		Ptr *Key
	}{k, &k}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, format+"\n", k)
		fmt.Fprintf(&log, format+"\n", config.Ptr)
		fmt.Fprintf(&log, format+"\n", config)
	}
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "key", k, "config", config)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "key", k, "config", config)
	for _, secret := range []string{"ZZZZ", "5a5a5a", "5A5A5A", "90 90 90", "0x5a, 0x5a"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in\n%s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "key of "+k.ID().String()) {
		t.Errorf("nothing says whose key it is in\n%s", log.String())
	}
}
