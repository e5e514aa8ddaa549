package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bodkin/internal/app/forward"
	"bodkin/internal/config"
	"bodkin/peer"
	"bodkin/rendezvous"
)

func id(n byte) peer.ID { return peer.NewKey([32]byte{n}).ID() }

// loaded is a configuration with the peers a and b.
func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	text = fmt.Sprintf("peers.a = %q\npeers.b = %q\n", id(1), id(2)) + text
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlanOfAFile(t *testing.T) {
	t.Parallel()
	c := loaded(t, `
[[forward]]
listen = "2222"
peer = "a"
to = "22"
[[forward]]
listen = "*:53"
peer = "b"
to = "dns.lan:53"
protocol = "udp"
[[forward]]
listen = "8080"
peer = "a"
to = "unix:web.sock"
reverse = true
[[allow]]
peer = "b"
to = "8000-8010/udp"
[[allow]]
peer = "*"
to = "nas.lan:*"
protocol = "tcp"
[[allow]]
peer = "`+id(3).String()+`"
to = "unix:some.sock"
[[allow]]
peer = "a"
to = "8080"
reverse = true
`)
	dir := filepath.Dir(c.Path)
	got, err := PlanOf(c)
	want := Plan{
		Peers: []peer.ID{id(1), id(2), id(3)},
		Forwards: []forward.Forward{
			{Peer: id(1), Listen: forward.Endpoint{Network: "tcp", Address: "127.0.0.1:2222"}, To: forward.Endpoint{Network: "tcp", Address: "localhost:22"}},
			{Peer: id(2), Listen: forward.Endpoint{Network: "udp", Address: ":53"}, To: forward.Endpoint{Network: "udp", Address: "dns.lan:53"}},
			{Peer: id(1), Listen: forward.Endpoint{Network: "tcp", Address: "127.0.0.1:8080"}, To: forward.Endpoint{Network: "unix", Address: filepath.Join(dir, "web.sock")}, Reverse: true},
		},
		Rules: forward.Rules{
			{Peer: id(2), Network: "udp", Host: "localhost", First: 8000, Last: 8010},
			{Network: "tcp", Host: "nas.lan", Last: 65535},
			{Peer: id(3), Network: "unix", Path: filepath.Join(dir, "some.sock")},
			{Peer: id(1), Network: "tcp", Host: "localhost", First: 8080, Last: 8080, Reverse: true},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v, want\n%+v", err, got, want)
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[[forward]]\nlisten = \"-\"\npeer = \"a\"\nto = \"1\"\n":                                                                        `:3:3: forward: a daemon has no standard input`,
		"[[forward]]\nlisten = \"1\"\npeer = \"a\"\nto = \"ssh\"\n":                                                                      `:3:3: forward: target "ssh"`,
		"[[forward]]\nlisten = \"1/udp\"\npeer = \"a\"\nto = \"1\"\nprotocol = \"tcp\"\n":                                                `:3:3: forward: "1/udp" contradicts`,
		"[[forward]]\nlisten = \"unix:x\"\npeer = \"a\"\nto = \"1\"\nprotocol = \"tcp\"\n":                                               `:3:3: forward: "unix:x" is a Unix socket`,
		"[[forward]]\nlisten = \"unix:x\"\npeer = \"a\"\nto = \"1/udp\"\n":                                                               `:3:3: forward: `,
		"[[allow]]\npeer = \"a\"\nto = \"web\"\n":                                                                                        `:3:3: allow: "web"`,
		"[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"1\"\n[[forward]]\nlisten=\"127.0.0.1:1\"\npeer=\"b\"\nto=\"2\"\n":                   `:7:3: forward: another forward listens on 127.0.0.1:1 already`,
		"[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"1\"\nreverse=true\n[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"2\"\nreverse=true\n": `:8:3: forward: another forward listens on 127.0.0.1:1 already`,
	} {
		c := loaded(t, text)
		if _, err := PlanOf(c); err == nil || !strings.Contains(err.Error(), c.Path+want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
	for _, text := range []string{ // at different places
		"[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"1\"\n[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"1/udp\"\n",
		"[[forward]]\nlisten=\"1\"\npeer=\"a\"\nto=\"1\"\nreverse=true\n[[forward]]\nlisten=\"1\"\npeer=\"b\"\nto=\"1\"\nreverse=true\n",
		"[[forward]]\nlisten=\"0\"\npeer=\"a\"\nto=\"1\"\n[[forward]]\nlisten=\"0\"\npeer=\"a\"\nto=\"2\"\n",
	} {
		if p, err := PlanOf(loaded(t, text)); err != nil || len(p.Forwards) != 2 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The server takes 32 peers. Of more it knows nothing, and the node refuses the rest.
func TestManyPeers(t *testing.T) {
	t.Parallel()
	var p Plan
	for i := range rendezvous.MaxPeers {
		p.Peers = append(p.Peers, id(byte(i+1)))
	}
	if got := New(p, nil).Peers(); len(got) != rendezvous.MaxPeers {
		t.Errorf("the server is told of %d", len(got))
	}
	p.Peers = append(p.Peers, id(200))
	d := New(p, nil)
	if got := d.Peers(); got != nil {
		t.Errorf("the server is told of %d", len(got))
	}
	if !d.Allows(id(200), "x") || d.Allows(id(201), "x") {
		t.Error("the wrong ones may connect")
	}
	if got := New(Plan{Peers: []peer.ID{}}, nil).Peers(); got == nil {
		t.Error("with nobody in the plan, everybody is introduced")
	}
}
