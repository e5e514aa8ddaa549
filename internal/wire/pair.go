package wire

import (
	"fmt"
	"time"

	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// Plate is a nameplate: the number under which a node waits for another one that
// its server has never heard of together with it. 0 is none.
type Plate uint32

// MaxLetter bounds the body of a Letter.
const MaxLetter = 64

// Invitation asks for a nameplate, and is the answer: the content of an Invite. In
// the request, a Plate of 0 is one of the server's choice and any other the one that
// the node has had; a Lifetime of 0 gives it back.
type Invitation struct {
	Plate    Plate
	Lifetime time.Duration // in whole seconds
}

// Append encodes i.
func (i Invitation) Append(a Attrs) Attrs {
	if i.Plate != 0 {
		a.AddUint32(AttrNameplate, uint32(i.Plate))
	}
	a.AddUint32(stun.AttrLifetime, uint32(i.Lifetime/time.Second))
	return a
}

// ParseInvitation decodes what Append encoded.
func ParseInvitation(a Attrs) (i Invitation, err error) {
	if err := a.Check(); err != nil {
		return Invitation{}, err
	}
	plate, _ := a.Uint32(AttrNameplate)
	seconds, ok := a.Uint32(stun.AttrLifetime)
	if _, has := a.Get(AttrNameplate); !ok || has && plate == 0 {
		return Invitation{}, fmt.Errorf("%w: invitation", ErrMalformed)
	}
	return Invitation{Plate(plate), time.Duration(seconds) * time.Second}, nil
}

// Letter is what the two who meet at a nameplate say to each other: the content of a
// Pair. The server says From whom it is, a node says nothing of that.
type Letter struct {
	Plate Plate
	From  peer.ID
	Body  []byte // opaque to the server
}

// Append encodes l.
func (l Letter) Append(a Attrs) Attrs {
	a.AddUint32(AttrNameplate, uint32(l.Plate))
	if !l.From.IsZero() {
		a.Add(AttrPeerID, l.From[:])
	}
	a.Add(AttrLetter, l.Body)
	return a
}

// ParseLetter decodes what Append encoded.
func ParseLetter(a Attrs) (l Letter, err error) {
	if err := a.Check(); err != nil {
		return Letter{}, err
	}
	plate, _ := a.Uint32(AttrNameplate)
	body, ok := a.Get(AttrLetter)
	if plate == 0 || !ok || len(body) > MaxLetter {
		return Letter{}, fmt.Errorf("%w: letter", ErrMalformed)
	}
	l = Letter{Plate: Plate(plate), Body: body}
	if id, has := a.Get(AttrPeerID); has {
		if l.From, err = peer.IDFromBytes(id); err != nil {
			return Letter{}, err
		}
	}
	return l, nil
}
