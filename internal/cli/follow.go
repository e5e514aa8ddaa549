package cli

import (
	"context"
	"os"
	"time"

	"bodkin"
)

// bookLook is how often a listener that lets in its address book looks whether that
// has changed.
const bookLook = time.Second

// followBook lets in who is in the address book now, whenever the file has changed and
// stayed so for a moment: who writes it may not be done.
func (a *app) followBook(ctx context.Context, n *bodkin.Node, f allowFlags) {
	path, err := a.configPath()
	if err != nil {
		return
	}
	stat := func() os.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			return nil
		}
		return info
	}
	seen, before := stat(), stat()
	look := time.NewTicker(bookLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		now := stat()
		if sameFile(now, before) && !sameFile(now, seen) {
			seen = now
			a.letIn(ctx, n, f)
		}
		before = now
	}
}

// letIn reads the address book again.
func (a *app) letIn(ctx context.Context, n *bodkin.Node, f allowFlags) {
	book, err := a.readFile()
	if err != nil {
		a.say("bodkin: %v; who could connect before still can", err)
		return
	}
	a.fileRead.Store(book)
	peers, err := a.allowed(f)
	if err == nil {
		err = n.SetPeers(peers)
	}
	if err != nil {
		a.say("bodkin: %v; who could connect before still can", err)
		return
	}
	_ = registered(ctx, n)
	a.say("address book read again: %s may connect", count(len(peers), "peer"))
}
