package forward

import (
	"strings"
	"testing"

	"bodkin/peer"
)

func TestTargetsAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Endpoint{
		"22":                    {TCP, "localhost:22"},
		"022":                   {TCP, "localhost:22"},
		"22/tcp":                {TCP, "localhost:22"},
		"27015/udp":             {UDP, "localhost:27015"},
		":22":                   {TCP, "localhost:22"},
		"nas.lan:445":           {TCP, "nas.lan:445"},
		"[::1]:22":              {TCP, "[::1]:22"},
		"[fe80::1%eth0]:53/udp": {UDP, "[fe80::1%eth0]:53"},
		"unix:/run/x.sock":      {Unix, "/run/x.sock"},
		"unix:/run/x/udp":       {Unix, "/run/x/udp"},
	} {
		got, err := ParseTarget(text)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
			continue
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%v is printed as %q, which is %v, %v", got, got.String(), again, err)
		}
	}
	for text, want := range map[string]string{
		"":                               "needs the form [HOST:]PORT",
		"ssh":                            `"ssh" is no port`,
		"host":                           `"host" is no port`,
		"host:":                          `"" is no port`,
		"65536":                          "not between 0 and 65535",
		"-1":                             `"-1" is no port`,
		"0":                              "port 0 cannot be connected to",
		"::1:22":                         "stands in brackets",
		"22/sctp":                        `no protocol "sctp"; there are: tcp, udp`,
		"a b:22":                         "needs the form",
		"*:22":                           "a target is one host",
		"unix:":                          "needs the form",
		strings.Repeat("x", 2000) + ":1": "more than 1024 bytes",
	} {
		if got, err := ParseTarget(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %v, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestPortsToListenOn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Endpoint{
		"8080":           {TCP, "127.0.0.1:8080"},
		"0":              {TCP, "127.0.0.1:0"},
		"*:8080":         {TCP, ":8080"},
		":8080":          {TCP, ":8080"},
		"[::]:8080/udp":  {UDP, "[::]:8080"},
		"192.168.1.2:80": {TCP, "192.168.1.2:80"},
		"unix:x":         {Unix, "x"},
		"-":              {Network: Stdio},
	} {
		if got, err := ParseListen(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
}

// /udp behind either word is enough, and a contradiction is one.
func TestProtocolHoldsForBothSides(t *testing.T) {
	t.Parallel()
	id := newKey(t).ID()
	for words, want := range map[[2]string]string{
		{"1", "2"}:          "tcp tcp",
		{"1", "2/udp"}:      "udp udp",
		{"1/udp", "2"}:      "udp udp",
		{"1/udp", "2/udp"}:  "udp udp",
		{"1/tcp", "2/udp"}:  "both have to be UDP",
		{"1/udp", "2/tcp"}:  "both have to be UDP",
		{"unix:x", "2"}:     "unix tcp",
		{"1", "unix:x"}:     "tcp unix",
		{"1/udp", "unix:x"}: "both have to be UDP",
		{"unix:x", "2/udp"}: "both have to be UDP",
		{"-", "2"}:          "stdio tcp",
		{"-", "2/udp"}:      "no UDP",
		{"1", "x"}:          "is no port",
		{"x", "1"}:          "is no port",
	} {
		l, to, err := Parse(words[0], words[1])
		if err == nil {
			err = Forward{Peer: id, Listen: l, To: to}.Check()
		}
		got := l.Network + " " + to.Network
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s; want %s", words, got, want)
		}
	}
	if err := (Forward{Peer: id, Listen: Endpoint{Network: Stdio}, To: Endpoint{TCP, "x:1"}, Reverse: true}).Check(); err == nil {
		t.Error("standard input was forwarded in reverse")
	}
}

func TestRulesAllowWhatTheySay(t *testing.T) {
	t.Parallel()
	a, b := newKey(t).ID(), newKey(t).ID()
	tcp := func(s string) Wish { return Wish{Endpoint: Endpoint{TCP, s}} }
	for _, c := range []struct {
		rule string
		wish Wish
		want bool
	}{
		{"22", tcp("localhost:22"), true},
		{"22", tcp("127.0.0.1:22"), true},
		{"22", tcp("[::1]:22"), true},
		{"22", tcp("[::ffff:127.0.0.1]:22"), true},
		{"22", tcp("127.0.0.2:22"), false},
		{"22", tcp("localhost:23"), false},
		{"22", tcp("example.org:22"), false},
		{"22", Wish{Endpoint: Endpoint{UDP, "localhost:22"}}, false},
		{"22", Wish{Endpoint: Endpoint{TCP, "localhost:22"}, Reverse: true}, false},
		{"22/udp", Wish{Endpoint: Endpoint{UDP, "localhost:22"}}, true},
		{"127.0.0.1:22", tcp("localhost:22"), true},
		{"NAS.lan:445", tcp("nas.LAN.:445"), true},
		{"192.168.1.2:445", tcp("nas.lan:445"), false},
		{"8000-8010", tcp("localhost:8000"), true},
		{"8000-8010", tcp("localhost:8010"), true},
		{"8000-8010", tcp("localhost:8011"), false},
		{"*:80", tcp("anything:80"), true},
		{"*:80", tcp("anything:81"), false},
		{"nas.lan:*", tcp("nas.lan:1"), true},
		{"nas.lan:*", tcp("localhost:1"), false},
		{"*:*", tcp("anything:65535"), true},
		{"*", tcp("localhost:1"), true},
		{"[2001:db8::1]:22", tcp("[2001:DB8:0::1]:22"), true},
		{"unix:/x", Wish{Endpoint: Endpoint{Unix, "/x"}}, true},
		{"unix:/x", Wish{Endpoint: Endpoint{Unix, "/x/../x"}}, false},
		{"*:*", Wish{Endpoint: Endpoint{Unix, "/x"}}, false},
	} {
		r, err := ParseRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("rule %q is printed as %q, which is %v, %v", c.rule, r, again, err)
		}
		r.Peer = a
		if got := (Rules{r}).Allow(a, c.wish); got != c.want {
			t.Errorf("%s allows %s: %v", c.rule, c.wish, got)
		}
		if (Rules{r}).Allow(b, c.wish) {
			t.Errorf("%s allows %s to another peer", c.rule, c.wish)
		}
		r.Peer = peer.ID{}
		if got := (Rules{r}).Allow(b, c.wish); got != c.want {
			t.Errorf("%s allows %s to everybody: %v", c.rule, c.wish, got)
		}
	}
	if (Rules{}).Allow(a, tcp("localhost:22")) {
		t.Error("no rule allows something")
	}
	// To listen on every address is more than to listen on one's own.
	local, _ := ParseRule("8080")
	local.Reverse = true
	all, _ := ParseRule("*:8080")
	all.Reverse = true
	everywhere := Wish{Endpoint{TCP, ":8080"}, true}
	if (Rules{local}).Allow(a, everywhere) || !(Rules{all}).Allow(a, everywhere) {
		t.Error("listening on every address is not as it should be")
	}
}

func TestRulesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "22-", "-22", "30-20", "22/x", "::1:22", "70000", "1-70000", "unix:", "a b:1"} {
		if r, err := ParseRule(text); err == nil {
			t.Errorf("%q is %v", text, r)
		}
	}
}

func newKey(t *testing.T) peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
