package netbed

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ns is a network namespace without a name: it lives as long as its handle or a
// process in it.
type ns struct {
	links *netlink.Handle

	mu     sync.RWMutex
	handle netns.NsHandle // -1 after close
}

// newNS makes a namespace.
func newNS() (*ns, error) {
	type result struct {
		n   *ns
		err error
	}
	made := make(chan result, 1)
	go func() {
		// The thread is never unlocked: it ends with this goroutine, and nothing
		// else ever runs in the namespace by mistake.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("new network namespace: %w", err)}
			return
		}
		h, err := netns.GetFromPath("/proc/thread-self/ns/net")
		if err != nil {
			made <- result{err: fmt.Errorf("open network namespace: %w", err)}
			return
		}
		links, err := netlink.NewHandleAt(h)
		if err != nil {
			_ = h.Close()
			made <- result{err: fmt.Errorf("netlink: %w", err)}
			return
		}
		made <- result{n: &ns{links: links, handle: h}}
	}()
	r := <-made
	if r.err != nil {
		return nil, r.err
	}
	lo, err := r.n.links.LinkByName("lo")
	if err == nil {
		err = r.n.links.LinkSetUp(lo)
	}
	if err != nil {
		r.n.close()
		return nil, fmt.Errorf("loopback: %w", err)
	}
	return r.n, nil
}

// do runs f on a thread inside the namespace. Goroutines that f starts are
// outside; sockets and processes that it makes stay inside.
func (n *ns) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, see newNS
		if err := n.enter(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

var errEnded = errors.New("the lab has ended")

// enter moves the calling thread into the namespace.
func (n *ns) enter() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.handle.IsOpen() {
		return errEnded
	}
	if err := netns.Set(n.handle); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

func (n *ns) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links.Close()
	_ = n.handle.Close()
}

// sysctl sets a value under /proc/sys/net for the namespace.
func (n *ns) sysctl(path, value string) error {
	return n.do(func() error {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		return nil
	})
}
