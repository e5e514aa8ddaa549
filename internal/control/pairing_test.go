//go:build !windows

package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
)

// fakeInvitation is a code whose end the test says.
type fakeInvitation struct {
	until  time.Time
	ends   chan joined
	closed chan struct{}
}

func newFakeInvitation() *fakeInvitation {
	return &fakeInvitation{time.Now().Add(time.Minute), make(chan joined, 1), make(chan struct{})}
}

func (i *fakeInvitation) Code() string     { return "42-lantern-copper" }
func (i *fakeInvitation) Until() time.Time { return i.until }

func (i *fakeInvitation) Wait(ctx context.Context) (peer.ID, error) {
	select {
	case j := <-i.ends:
		if j.Error != nil {
			return peer.ID{}, j.Error.Unwrap()
		}
		return j.Peer, nil
	case <-ctx.Done():
		return peer.ID{}, ctx.Err()
	}
}

func (i *fakeInvitation) Close() error {
	close(i.closed)
	return nil
}

func TestInvitationThroughTheNode(t *testing.T) {
	own := newFakeInvitation()
	n := &fake{invite: func(life time.Duration) (Invitation, error) {
		if life != time.Minute {
			t.Errorf("a code for %v", life)
		}
		return own, nil
	}}
	s, c := run(t, n)
	i, err := c.Invite(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if i.Code() != own.Code() || !i.Until().Equal(own.until) || s.Busy() != 1 {
		t.Errorf("code %q until %v, %d commands", i.Code(), i.Until(), s.Busy())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := i.Wait(ctx); !errors.Is(err, enough) {
		t.Errorf("waited until %v", err)
	}
	want := newID(t)
	own.ends <- joined{Peer: want}
	for range 2 { // it stays so
		if id, err := i.Wait(t.Context()); id != want || err != nil {
			t.Errorf("joined: %v, %v", id, err)
		}
	}
	<-own.closed
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	s.Wait(t.Context())
}

func TestInvitationEndsWithItsCommand(t *testing.T) {
	own := newFakeInvitation()
	_, c := run(t, &fake{invite: func(time.Duration) (Invitation, error) { return own, nil }})
	i, err := c.Invite(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	<-own.closed
}

func TestInvitationEndsWithTheNode(t *testing.T) {
	own := newFakeInvitation()
	s, c := run(t, &fake{invite: func(time.Duration) (Invitation, error) { return own, nil }})
	i, err := c.Invite(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-own.closed
	if _, err := i.Wait(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("ended with %v", err)
	}
}

func TestErrorsOfCodesKeepTheirKind(t *testing.T) {
	n := &fake{}
	_, c := run(t, n)
	for _, want := range codeErrors {
		n.invite = func(time.Duration) (Invitation, error) { return nil, want }
		n.join = func(string) (peer.ID, error) { return peer.ID{}, want }
		if _, err := c.Invite(t.Context(), time.Minute); !errors.Is(err, want) {
			t.Errorf("invite: %v instead of %v", err, want)
		}
		if _, err := c.Join(t.Context(), "1-a-b"); !errors.Is(err, want) || err.Error() != want.Error() {
			t.Errorf("join: %v instead of %v", err, want)
		}
		own := newFakeInvitation()
		own.ends <- joined{Error: errorOf(want)}
		n.invite = func(time.Duration) (Invitation, error) { return own, nil }
		i, err := c.Invite(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Wait(t.Context()); !errors.Is(err, want) {
			t.Errorf("wait: %v instead of %v", err, want)
		}
		_ = i.Close()
	}
}

func TestJoinThroughTheNode(t *testing.T) {
	want := newID(t)
	_, c := run(t, &fake{join: func(code string) (peer.ID, error) {
		if code != "42 lantern, copper & more" {
			t.Errorf("code %q", code)
		}
		return want, nil
	}})
	if id, err := c.Join(t.Context(), "42 lantern, copper & more"); id != want || err != nil {
		t.Errorf("joined %v, %v", id, err)
	}
}

func TestGuestIsLetInForACommand(t *testing.T) {
	id, ended := newID(t), make(chan struct{})
	n := &fake{admit: func(i peer.ID, service string) (func(), error) {
		if i != id || service != "a/b" {
			t.Errorf("let %v in to %q", i, service)
		}
		return func() { close(ended) }, nil
	}}
	_, c := run(t, n)
	end, err := c.Admit(t.Context(), id, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Error("ended already")
	default:
	}
	end()
	<-ended
	n.admit = func(peer.ID, string) (func(), error) { return nil, bodkin.ErrClosed }
	if _, err := c.Admit(t.Context(), id, "x"); err == nil || err.Error() != bodkin.ErrClosed.Error() {
		t.Errorf("not let in: %v", err)
	}
}
