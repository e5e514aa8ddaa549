package sock

import (
	"context"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// In a network of a thread of its own the loopback interface comes up: the watcher
// hears of it, and ends with its context.
func TestChangesAreHeardAndEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type watch struct {
		changed <-chan struct{}
		err     error
	}
	watching := make(chan watch)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its network
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			watching <- watch{nil, err}
			return
		}
		changed, err := System{}.Changes(ctx)
		if err == nil {
			err = loopbackUp()
		}
		watching <- watch{changed, err}
	}()
	w := <-watching
	if w.err != nil {
		t.Skipf("no network of our own here: %v", w.err)
	}
	<-w.changed
	cancel()
	for range w.changed { // until it is closed
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
