package cli

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bodkin"
)

// Not parallel, as the environment is everybody's.
func TestSystemdIsTold(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "notify")
	systemd, err := new(net.ListenConfig).ListenPacket(t.Context(), "unixgram", at)
	if err != nil {
		t.Skip(err) // Windows has no such sockets
	}
	defer func() { _ = systemd.Close() }()
	for name, value := range map[string]string{
		"NOTIFY_SOCKET": at, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid()),
	} {
		t.Setenv(name, value)
	}
	n := newNotifier()
	n.say("READY=1\nSTATUS=%d peers", 2)
	now := time.Now()
	for _, later := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		n.alive(now.Add(later))
	}
	n.say("STOPPING=1")
	buf := make([]byte, 100)
	for _, want := range []string{"READY=1\nSTATUS=2 peers", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"} {
		size, _, err := systemd.ReadFrom(buf)
		if err != nil || string(buf[:size]) != want {
			t.Errorf("%q, %v; want %q", buf[:size], err, want)
		}
	}
	t.Setenv("WATCHDOG_PID", "1")
	if n := newNotifier(); n.watchdog != 0 {
		t.Error("a watchdog for another process")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "none"))
	newNotifier().say("READY=1")
	t.Setenv("NOTIFY_SOCKET", "")
	newNotifier().say("READY=1")
}

func TestChangedSettingsAreNamed(t *testing.T) {
	t.Parallel()
	a, errA := configured(t, "server = \"x\"\nport = 1\nkey = \"k\"\n").file()
	b, errB := configured(t, "port = 2\nserver = \"x\"\nevents = \"e\"\n").file()
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if got := changedSettings(a, b); !slices.Equal(got, []string{"events", "key", "port"}) {
		t.Error(got)
	}
	if got := changedSettings(a, a); got != nil {
		t.Error(got)
	}
}

func TestDaemonSaysWhetherItIsRegistered(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	s := &upkeep{app: &app{err: &said}, notifier: &notifier{}}
	at := func(text string) bodkin.Status {
		return bodkin.Status{Registered: true, Observed: []netip.AddrPort{netip.MustParseAddrPort(text)}}
	}
	for _, now := range []bodkin.Status{
		{}, at("192.0.2.1:1"), at("192.0.2.1:1"), at("192.0.2.2:2"), {}, {}, at("192.0.2.2:2"),
	} {
		s.tellRegistered(now)
	}
	want := `registered; from outside this node is 192.0.2.1:1
registered; from outside this node is 192.0.2.2:2
the server does not answer; direct connections go on
registered; from outside this node is 192.0.2.2:2
`
	if said.String() != want {
		t.Errorf("%s", said.String())
	}
}
