package rendezvous

import (
	"errors"
	"strings"
	"testing"

	"bodkin/peer"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	id := serverKey.ID()
	for text, want := range map[string]URL{
		"bodkin://host.example:3478/" + id.String():              {"host.example", 3478, id, 0, 0},
		"bodkin://host.example/" + id.String():                   {"host.example", 3478, id, 0, 0},
		" bodkin://192.0.2.1:99/" + id.String() + "/\n":          {"192.0.2.1", 99, id, 0, 0},
		"BODKIN://[2001:db8::1]/" + strings.ToUpper(id.String()): {"2001:db8::1", 3478, id, 0, 0},
		"bodkin://host/" + id.String() + "?tls=8443":             {"host", 3478, id, 0, 8443},
		"bodkin://host/" + id.String() + "?tcp=1&tls=2":          {"host", 3478, id, 1, 2},
		"bodkin://[fe80::1%25eth0]:1/" + id.String():             {"fe80::1%eth0", 1, id, 0, 0},
	} {
		u, err := ParseURL(text)
		if err != nil || u != want {
			t.Errorf("%q: %+v, %v", text, u, err)
		}
		if again, err := ParseURL(u.String()); err != nil || again != u {
			t.Errorf("%q: %+v, %v", u.String(), again, err)
		}
	}
}

// Each refusal says what is wrong with the URL, and is a bad URL to [errors.Is].
func TestBadURLs(t *testing.T) {
	t.Parallel()
	id := serverKey.ID().String()
	for text, want := range map[string]string{
		"":                                      "empty",
		"host:3478/" + id:                       "bodkin://",
		"https://host/" + id:                    "does not begin with bodkin://",
		"bodkin://:3478/" + id:                  "no host",
		"bodkin:///" + id:                       "no host",
		"bodkin://host":                         "no server ID",
		"bodkin://host/":                        "no server ID",
		"bodkin://host:0/" + id:                 "between 1 and 65535",
		"bodkin://host:65536/" + id:             "between 1 and 65535",
		"bodkin://host:x/" + id:                 "port",
		"bodkin://host/" + id + "?":             "more than",
		"bodkin://host/" + id + "?a=b":          "?tcp=PORT",
		"bodkin://host/" + id + "?tls=0":        "between 1 and 65535",
		"bodkin://host/" + id + "?tls=1&tls=2":  "once each",
		"bodkin://host/" + id + "?%zz":          "not a server URL",
		"bodkin://host/" + id + "#a":            "more than",
		"bodkin://user@host/" + id:              "more than",
		"bodkin://h%c3%b6st/" + id:              "neither a name nor an IP address",
		"bodkin://host/" + id[1:]:               "server ID",
		"bodkin://host/" + id + "/x":            "server ID",
		"bodkin://host/" + "z" + id[1:51] + "1": "server ID",
	} {
		_, err := ParseURL(text)
		if !errors.Is(err, ErrBadURL) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something with %q", text, err, want)
		}
	}
	if _, err := ParseURL("bodkin://host/" + id[1:]); !errors.Is(err, peer.ErrBadID) {
		t.Errorf("a bad ID is %v", err)
	}
}
