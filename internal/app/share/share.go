// Package share sends files, folders, streams and texts from one node to another.
//
// Either side may dial. The first stream of a transfer is its control stream; the side
// that dialled then opens some more, which carry data from the side that sends. What the
// messages are docs/share.md says.
//
//	share.go    what may be asked for
//	send.go     the side that sends: to a peer, or to those who come
//	receive.go  the side that receives
//	link.go     the streams of a transfer
//	message.go  what is said on them
//	manifest.go what is sent: entries, and what may not be among them
//	source.go   where it comes from
//	outgoing.go one transfer at the side that sends
//	incoming.go one transfer at the side that receives
//	staging.go  the folder that holds what has come, until all has
//	place.go    putting it in its place
//	names.go    names as a system can have them
//	writer.go   passing it on instead
//	tree.go     BLAKE3, piece by piece
//	gate.go     waiting for a direct route
package share

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bodkin"
	"bodkin/peer"
)

// Notice is something that happened, for people and programs.
type Notice struct {
	Kind     NoticeKind
	Peer     peer.ID
	Error    error     // why it is waited, or was given up
	Progress *Progress // of what has begun
}

// NoticeKind is what a Notice tells.
type NoticeKind string

// Kinds of notices.
const (
	// NoticeWaiting: the other side is not there, or went away, for Error.
	NoticeWaiting NoticeKind = "waiting"
	// NoticeBegun: a transfer with Peer begins, or goes on.
	NoticeBegun NoticeKind = "begun"
	// NoticeDone: everything is at Peer.
	NoticeDone NoticeKind = "done"
	// NoticeFailed: a transfer with Peer ended for Error, and others may come.
	NoticeFailed NoticeKind = "failed"
)

// Options are what both sides may choose.
type Options struct {
	// DirectOnly keeps data off the relay.
	DirectOnly bool
	// Rate bounds what a sender sends to each receiver, in bytes a second; 0 is no bound.
	Rate int64
	// Wait is how long the other side may be away; 0 is for ever.
	Wait time.Duration
	// Notice is told what happens; nil is nobody.
	Notice func(Notice)
}

func (o *Options) tell(n Notice) {
	if o.Notice != nil {
		o.Notice(n)
	}
}

// The pause before a peer that is not there is dialled again grows from the one to the
// other.
const (
	retryFirst = 250 * time.Millisecond
	retryLast  = 2 * time.Second
	// quietTime is how long a peer may be away before that is news: it may only just
	// have been started, too.
	quietTime = time.Second
)

// persist does once with a peer that we dial, and again as long as it is only away.
func (o *Options) persist(ctx context.Context, id peer.ID, once func(context.Context) error) error {
	var away time.Time // since when
	var pause time.Duration
	told := false
	var kept *keptError // by the latest try that had begun
	for {
		err := once(ctx)
		if err == nil || ctx.Err() != nil || !passing(err) {
			return stopped(ctx, err, kept)
		}
		if k, ok := errors.AsType[*keptError](err); ok {
			kept = k
		}
		if away.IsZero() || began(err) {
			away, pause, told = time.Now(), retryFirst, false
		}
		if !told && (began(err) || time.Since(away) >= quietTime) {
			told = true
			o.tell(Notice{Kind: NoticeWaiting, Peer: id, Error: err})
		}
		if o.Wait > 0 && time.Since(away) >= o.Wait {
			return kept.by(fmt.Errorf("%w; it was waited for, %v long", err, o.Wait))
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, retryLast)
		case <-ctx.Done():
			return stopped(ctx, err, kept)
		}
	}
}

// stopped is an error, or what ctx ended for, with what is kept by it or from before.
func stopped(ctx context.Context, err error, kept *keptError) error {
	if err == nil {
		return nil
	}
	if k, ok := errors.AsType[*keptError](err); ok {
		kept = k
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return kept.by(err)
}

// brokenError is how a transfer that had begun broke off.
type brokenError struct{ err error }

// Error implements error.
func (e *brokenError) Error() string { return e.err.Error() }

// Unwrap is the error alone.
func (e *brokenError) Unwrap() error { return e.err }

func began(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}

// passing reports whether an error may be over when it is tried again: the other side is
// away, and has not said no.
func passing(err error) bool {
	var f *Failure
	var ours *stopError
	switch {
	case errors.As(err, &f):
		return f.code == failStopped
	case errors.As(err, &ours):
		return false
	case errors.Is(err, bodkin.ErrClosed), errors.Is(err, bodkin.ErrDisplaced):
		return false
	}
	return true
}
