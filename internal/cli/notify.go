package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notifier tells systemd how a service is: sd_notify(3). Without one it does nothing.
type notifier struct {
	socket   string
	watchdog time.Duration // how often it wants to hear of us at the least; 0: not
	last     time.Time     // when it did
}

func newNotifier() *notifier {
	n := &notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

// say sends what is to be said. That nobody hears it is no reason to stop.
func (n *notifier) say(format string, args ...any) {
	if n.socket == "" {
		return
	}
	c, err := new(net.Dialer).DialContext(context.Background(), "unixgram", n.socket)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, format, args...)
}

// alive tells the watchdog, if it is time.
func (n *notifier) alive(now time.Time) {
	if n.watchdog > 0 && now.Sub(n.last) >= n.watchdog/3 {
		n.last = now
		n.say("WATCHDOG=1")
	}
}
