package wire

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"bodkin/peer"
)

// Ask is a node's request to be introduced: the content of an Introduce.
type Ask struct {
	Target  peer.ID
	Tags    []Tag   // PolicyTags for the asker's epoch, the one before and the one after
	Channel Channel // of the asker's half; data may leave on it at once
	Offer   []byte  // sealed to the target; opaque to the server
}

// maxAskTags: yesterday's, today's and tomorrow's, for clocks that differ.
const maxAskTags = 3

// maxOffer bounds an Offer: a description, keys and overhead.
const maxOffer = MaxDescription + 256

// Append encodes q.
func (q Ask) Append(a Attrs) Attrs {
	a.Add(AttrPeerID, q.Target[:])
	a.Add(AttrTags, appendTags(nil, q.Tags))
	a.AddChannel(q.Channel)
	a.Add(AttrOffer, q.Offer)
	return a
}

// ParseAsk decodes what Append encoded.
func ParseAsk(a Attrs) (q Ask, err error) {
	if err := a.Check(); err != nil {
		return Ask{}, err
	}
	// Whether the target can be somebody's key does not matter: the server only
	// looks it up, and peer.ID.Check costs ten times as much as all the rest.
	id, _ := a.Get(AttrPeerID)
	if len(id) != peer.IDSize {
		return Ask{}, fmt.Errorf("%w: target of an introduction", ErrMalformed)
	}
	q.Target = peer.ID(id)
	if q.Tags, err = parseTags(a, maxAskTags); err != nil {
		return Ask{}, err
	}
	var ok bool
	if q.Channel, ok = a.Channel(); !ok || !q.Channel.Asked() {
		return Ask{}, fmt.Errorf("%w: channel of an introduction", ErrMalformed)
	}
	q.Offer, ok = a.Get(AttrOffer)
	if !ok || len(q.Offer) > maxOffer {
		return Ask{}, fmt.Errorf("%w: offer", ErrMalformed)
	}
	return q, nil
}

// Party is one peer as the server describes it to the other: the content of the
// answer to an Introduce (the target, with its description) and of an Introduced
// (the asker, with its offer).
type Party struct {
	ID          peer.ID
	Instance    uint64
	Observed    []netip.AddrPort
	Description []byte // the target's, as registered
	Offer       []byte // the asker's, sealed
	Channel     Channel
	Revision    uint32 // of the target's registration, as the asker was told it

	ObservedTCP []netip.AddrPort // of connections to the server
	// Age is how long ago the introduction was, of one that is repeated to its
	// target: in whole milliseconds.
	Age time.Duration
}

// Append encodes p.
func (p Party) Append(a Attrs) Attrs {
	a.Add(AttrPeerID, p.ID[:])
	a.AddUint64(AttrInstance, p.Instance)
	a.Add(AttrObserved, AppendEndpoints(nil, p.Observed...))
	a.AddChannel(p.Channel)
	a.AddUint32(AttrRevision, p.Revision)
	if len(p.Description) > 0 {
		a.Add(AttrDescription, p.Description)
	}
	if len(p.Offer) > 0 {
		a.Add(AttrOffer, p.Offer)
	}
	if ms := p.Age.Milliseconds(); ms > 0 {
		a.AddUint32(AttrAge, uint32(min(ms, math.MaxUint32)))
	}
	return addObservedTCP(a, p.ObservedTCP)
}

// ParseParty decodes what Append encoded.
func ParseParty(a Attrs) (p Party, err error) {
	if err := a.Check(); err != nil {
		return Party{}, err
	}
	id, _ := a.Get(AttrPeerID)
	if p.ID, err = peer.IDFromBytes(id); err != nil {
		return Party{}, err
	}
	var ok [3]bool
	p.Instance, ok[0] = a.Uint64(AttrInstance)
	p.Channel, ok[1] = a.Channel()
	p.Revision, ok[2] = a.Uint32(AttrRevision)
	if ok != [3]bool{true, true, true} || p.Instance == 0 {
		return Party{}, fmt.Errorf("%w: party", ErrMalformed)
	}
	observed, _ := a.Get(AttrObserved)
	if p.Observed, err = ParseEndpoints(observed, maxObserved); err != nil {
		return Party{}, err
	}
	if p.ObservedTCP, err = observedTCP(a); err != nil {
		return Party{}, err
	}
	age, _ := a.Uint32(AttrAge)
	p.Age = time.Duration(age) * time.Millisecond
	p.Description, _ = a.Get(AttrDescription)
	p.Offer, _ = a.Get(AttrOffer)
	if len(p.Description) > MaxDescription || len(p.Offer) > maxOffer {
		return Party{}, fmt.Errorf("%w: party", ErrMalformed)
	}
	return p, nil
}

// Offer is what an asker tells the other peer past the server: the content of
// an OFFER, sealed with purpose "offer" and the server's ID as its context.
type Offer struct {
	Instance    uint64
	Counter     uint64   // counts an instance's offers: an old one changes nothing
	Nonce       [32]byte // the session nonce: probe keys derive from it
	Description []byte   // the asker's candidates and NAT profile, as of now
}

// OfferPurpose is the purpose that offers are sealed for (peer.Key.Seal).
const OfferPurpose = "offer"

// Append encodes o.
func (o Offer) Append(a Attrs) Attrs {
	a.AddUint64(AttrInstance, o.Instance)
	a.AddUint64(AttrCounter, o.Counter)
	a.Add(AttrSessionNonce, o.Nonce[:])
	a.Add(AttrDescription, o.Description)
	return a
}

// ParseOffer decodes what Append encoded.
func ParseOffer(a Attrs) (o Offer, err error) {
	if err := a.Check(); err != nil {
		return Offer{}, err
	}
	var ok [2]bool
	o.Instance, ok[0] = a.Uint64(AttrInstance)
	o.Counter, ok[1] = a.Uint64(AttrCounter)
	nonce, _ := a.Get(AttrSessionNonce)
	if ok != [2]bool{true, true} || o.Instance == 0 || len(nonce) != len(o.Nonce) {
		return Offer{}, fmt.Errorf("%w: offer", ErrMalformed)
	}
	o.Nonce = [32]byte(nonce)
	o.Description, _ = a.Get(AttrDescription)
	if len(o.Description) > MaxDescription {
		return Offer{}, fmt.Errorf("%w: offer", ErrMalformed)
	}
	return o, nil
}
