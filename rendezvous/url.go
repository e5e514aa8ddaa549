package rendezvous

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"bodkin/peer"
)

// DefaultPort is STUN's (RFC 8489 §18.6).
const DefaultPort = 3478

// Scheme is that of a server's URL.
const Scheme = "bodkin"

// URL names a server: where it is, and by its key, who it is.
type URL struct {
	Host string // a name or an IP address, without brackets
	Port uint16
	ID   peer.ID
	// TCP and TLS are the ports for connections; 0 is Port for TCP, and 443 for TLS.
	TCP, TLS uint16
}

// TLSPort is where a server is expected to take connections over TLS.
const TLSPort = 443

// Streams are the ports for connections.
func (u URL) Streams() (tcp, tls uint16) {
	tcp, tls = u.TCP, u.TLS
	if tcp == 0 {
		tcp = u.Port
	}
	if tls == 0 {
		tls = TLSPort
	}
	return tcp, tls
}

// ErrBadURL is wrapped by every error about a text that is no server's URL.
var ErrBadURL = errors.New("not a server URL")

const urlHint = "it looks like bodkin://host:3478/SERVERID, as `bodkin serve` prints it"

// ParseURL reads bodkin://host[:port]/SERVERID, with ?tcp=PORT or ?tls=PORT behind it
// where these are not the usual ones.
func ParseURL(text string) (URL, error) {
	if text == "" {
		return URL{}, fmt.Errorf("%w: it is empty; %s", ErrBadURL, urlHint)
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return URL{}, fmt.Errorf("%w: %w; %s", ErrBadURL, err, urlHint)
	}
	if u.Scheme != Scheme {
		return URL{}, fmt.Errorf("%w: %q does not begin with %s://; %s", ErrBadURL, text, Scheme, urlHint)
	}
	if u.User != nil || u.ForceQuery || u.Fragment != "" {
		return URL{}, fmt.Errorf("%w: %q has more than host, port and ID; %s", ErrBadURL, text, urlHint)
	}
	out := URL{Host: u.Hostname(), Port: DefaultPort}
	if out.Host == "" {
		return URL{}, fmt.Errorf("%w: %q has no host; %s", ErrBadURL, text, urlHint)
	}
	if !isHost(out.Host) {
		return URL{}, fmt.Errorf("%w: %q is neither a name nor an IP address; write names as DNS has them (xn--…)", ErrBadURL, out.Host)
	}
	if p := u.Port(); p != "" {
		if out.Port, err = parsePort(p); err != nil {
			return URL{}, err
		}
	}
	if err := out.parseStreams(u.RawQuery); err != nil {
		return URL{}, err
	}
	id := strings.Trim(u.Path, "/")
	if id == "" {
		return URL{}, fmt.Errorf("%w: %q has no server ID at its end; %s", ErrBadURL, text, urlHint)
	}
	if out.ID, err = peer.ParseID(id); err != nil {
		return URL{}, fmt.Errorf("%w: server ID: %w", ErrBadURL, err)
	}
	return out, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: port %q is not between 1 and 65535", ErrBadURL, text)
	}
	return uint16(n), nil
}

// parseStreams reads the ports for connections.
func (u *URL) parseStreams(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("%w: %w; %s", ErrBadURL, err, urlHint)
	}
	for name, all := range values {
		port := map[string]*uint16{"tcp": &u.TCP, "tls": &u.TLS}[name]
		if port == nil || len(all) != 1 {
			return fmt.Errorf("%w: there can be ?tcp=PORT and tls=PORT behind the ID, once each; %s", ErrBadURL, urlHint)
		}
		if *port, err = parsePort(all[0]); err != nil {
			return err
		}
	}
	return nil
}

// isHost reports whether text is an IP address or made of what names in DNS are
// made of.
func isHost(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil || !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// String is the URL's text, always with its port.
func (u URL) String() string {
	host := net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
	query := make(url.Values)
	for name, port := range map[string]uint16{"tcp": u.TCP, "tls": u.TLS} {
		if port != 0 {
			query.Set(name, strconv.Itoa(int(port)))
		}
	}
	return (&url.URL{Scheme: Scheme, Host: host, Path: "/" + u.ID.String(), RawQuery: query.Encode()}).String()
}
