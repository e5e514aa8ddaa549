package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// Registration is what a node says of itself to its server: the content of the
// BOX of a Register, and of the SEALED of a Refresh that changes anything.
type Registration struct {
	Instance    uint64 // of the process, not 0
	Counter     uint64 // counts an instance's Registers: a repeated one changes nothing
	Flags       uint32 // FlagAccepting, FlagOpen
	Description []byte // candidates and NAT profile; opaque to the server
	Tags        []Tag
	Gone        bool // the node leaves: forget it (LIFETIME 0)
}

// Tag lets one asker through without telling the server whom: see PolicyTag.
type Tag [TagSize]byte

// Epoch is the number of the day that policy tags are for, so that they cannot
// be compared over longer times.
func Epoch(now time.Time) uint32 { return uint32(now.Unix() / 86400) }

// PolicyTag is the tag by which target lets asker find it at that server. Both
// compute it from their shared secret; nobody else can.
func PolicyTag(s peer.Secret, asker, target, server peer.ID, epoch uint32) Tag {
	k := s.Key(nil, "policy tag", asker[:], target[:], server[:], binary.BigEndian.AppendUint32(nil, epoch))
	return Tag(k[:TagSize])
}

// Append encodes r.
func (r Registration) Append(a Attrs) Attrs {
	a.AddUint64(AttrInstance, r.Instance)
	a.AddUint64(AttrCounter, r.Counter)
	a.AddUint32(AttrFlags, r.Flags)
	a.Add(AttrDescription, r.Description)
	if len(r.Tags) > 0 {
		a.Add(AttrTags, appendTags(nil, r.Tags))
	}
	if r.Gone {
		a.AddUint32(stun.AttrLifetime, 0)
	}
	return a
}

// ParseRegistration decodes what Append encoded.
func ParseRegistration(a Attrs) (r Registration, err error) {
	if err := a.Check(); err != nil {
		return Registration{}, err
	}
	var ok [4]bool
	r.Instance, ok[0] = a.Uint64(AttrInstance)
	r.Counter, ok[1] = a.Uint64(AttrCounter)
	r.Flags, ok[2] = a.Uint32(AttrFlags)
	r.Description, ok[3] = a.Get(AttrDescription)
	if ok != [4]bool{true, true, true, true} || r.Instance == 0 || len(r.Description) > MaxDescription {
		return Registration{}, fmt.Errorf("%w: registration", ErrMalformed)
	}
	if r.Tags, err = parseTags(a, MaxTags); err != nil {
		return Registration{}, err
	}
	if l, has := a.Uint32(stun.AttrLifetime); has && l == 0 {
		r.Gone = true
	}
	return r, nil
}

func appendTags(b []byte, tags []Tag) []byte {
	for _, t := range tags {
		b = append(b, t[:]...)
	}
	return b
}

func parseTags(a Attrs, limit int) ([]Tag, error) {
	v, _ := a.Get(AttrTags)
	if len(v)%TagSize != 0 || len(v) > limit*TagSize {
		return nil, fmt.Errorf("%w: tags", ErrMalformed)
	}
	var tags []Tag
	for ; len(v) > 0; v = v[TagSize:] {
		tags = append(tags, Tag(v[:TagSize]))
	}
	return tags, nil
}

// Registered is the server's answer to a Register or Refresh: the content of
// its SEALED.
type Registered struct {
	Observed []netip.AddrPort // the node's endpoints as the server sees them, one a family
	Lifetime time.Duration    // of the registration without a refresh, in whole seconds
	Revision uint32           // of the registration: counts its changes
	Flags    uint32           // FlagDisplaced, FlagKept

	// ObservedTCP are those of its connections to the server, if it has any.
	ObservedTCP []netip.AddrPort
}

// Append encodes r.
func (r Registered) Append(a Attrs) Attrs {
	a.Add(AttrObserved, AppendEndpoints(nil, r.Observed...))
	a.AddUint32(stun.AttrLifetime, uint32(r.Lifetime/time.Second))
	a.AddUint32(AttrRevision, r.Revision)
	a.AddUint32(AttrFlags, r.Flags)
	return addObservedTCP(a, r.ObservedTCP)
}

// ParseRegistered decodes what Append encoded.
func ParseRegistered(a Attrs) (r Registered, err error) {
	if err := a.Check(); err != nil {
		return Registered{}, err
	}
	observed, hasObserved := a.Get(AttrObserved)
	seconds, hasLifetime := a.Uint32(stun.AttrLifetime)
	var hasRevision bool
	r.Revision, hasRevision = a.Uint32(AttrRevision)
	r.Flags, _ = a.Uint32(AttrFlags)
	if !hasObserved || !hasLifetime || !hasRevision {
		return Registered{}, fmt.Errorf("%w: registered", ErrMalformed)
	}
	r.Lifetime = time.Duration(seconds) * time.Second
	if r.Observed, err = ParseEndpoints(observed, maxObserved); err != nil {
		return Registered{}, err
	}
	r.ObservedTCP, err = observedTCP(a)
	return r, err
}

func addObservedTCP(a Attrs, es []netip.AddrPort) Attrs {
	if len(es) > 0 {
		a.Add(AttrObservedTCP, AppendEndpoints(nil, es...))
	}
	return a
}

func observedTCP(a Attrs) ([]netip.AddrPort, error) {
	v, _ := a.Get(AttrObservedTCP)
	return ParseEndpoints(v, maxObserved)
}

// maxObserved bounds the endpoints of one node that a server reports, over UDP and
// over TCP: one an address family.
const maxObserved = 2

// AppendRegister builds a Register: without a NONCE it is a hello, padded so that
// the answer is no longer; with one it carries the BOX.
func AppendRegister(b []byte, id TransactionID, nonce, box []byte) []byte {
	m := newMessage(stun.NewType(Register, stun.ClassRequest), id)
	if len(nonce) == 0 {
		m.Add(AttrPadding, make([]byte, HelloPadding))
	} else {
		m.Add(stun.AttrNonce, nonce)
		m.Add(AttrBox, box)
	}
	return append(b, m.Raw...)
}

// Opened is what a server reads in a Register.
type Opened struct {
	From         peer.ID // who sealed the BOX
	Secret       peer.Secret
	Enc          [32]byte // the BOX's ephemeral key, for [NewLinkKeys]
	Registration Registration
}

// OpenRegister opens a Register with the server's key. The BOX authenticates the
// transaction ID and the NONCE, which leave nothing open about the rest: the whole
// message must be the one that they make. A failure of that is peer.ErrSeal.
func OpenRegister(m *stun.Message, key peer.Key) (Opened, error) {
	nonce, _ := m.Get(stun.AttrNonce)
	box, err := m.Get(AttrBox)
	if err != nil || len(nonce) == 0 {
		return Opened{}, ErrMalformed
	}
	from, secret, content, err := key.OpenShared(registerPurpose, registerContext(m.TransactionID, nonce), box)
	if err != nil || !bytes.Equal(m.Raw, AppendRegister(nil, m.TransactionID, nonce, box)) {
		return Opened{}, peer.ErrSeal
	}
	r, err := ParseRegistration(content)
	return Opened{from, secret, [32]byte(box), r}, err
}

// SealRegister makes the BOX of a Register.
func SealRegister(key peer.Key, server peer.ID, id TransactionID, nonce []byte, r Registration) ([]byte, error) {
	return key.Seal(server, registerPurpose, registerContext(id, nonce), r.Append(nil))
}

// registerPurpose and registerContext are what a BOX is sealed for (peer.Key.Seal):
// this one request, from this one source.
const registerPurpose = "register"

func registerContext(id TransactionID, nonce []byte) []byte {
	return append(id[:], nonce...)
}
