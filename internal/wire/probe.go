package wire

import (
	"encoding/binary"
	"net/netip"

	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// TransactionID is the nonce of a probe: drawn at random, and a route counts
// only when it came back.
type TransactionID = [stun.TransactionIDSize]byte

// ProbeKeys are what two peers authenticate the probes of one introduction
// with. The two directions have their own keys: one's own probe, sent back by a
// router or by a stranger with the peer's private address, does not verify.
type ProbeKeys struct {
	Session [8]byte // names the introduction
	Ours    Integrity
	Theirs  Integrity
}

// NewProbeKeys derives the keys of the introduction that the session nonce was
// drawn for.
func NewProbeKeys(s peer.Secret, nonce [32]byte, self, other peer.ID) ProbeKeys {
	first, second := self, other
	if string(other[:]) < string(self[:]) {
		first, second = other, self
	}
	session := s.Key(nonce[:], "probe session", first[:], second[:])
	return ProbeKeys{
		Session: [8]byte(session[:8]),
		Ours:    Integrity(s.Key(nonce[:], "probe", self[:], other[:])),
		Theirs:  Integrity(s.Key(nonce[:], "probe", other[:], self[:])),
	}
}

// Probe is a parsed probe or its answer.
type Probe struct {
	ID       TransactionID
	Answer   bool
	Session  [8]byte
	Sequence uint64         // of a probe; answers have none
	Moves    uint32         // of a probe over the relay: counts the changes of its sender's network
	Mapped   netip.AddrPort // of an answer: where the probe came from
	Counts   bool           // whether an answer tells Arrived
	Arrived  uint64         // bytes of data that had come by the way of the probe
	message  *stun.Message
}

// ProbeSize is the length of a probe without PADDING.
const ProbeSize = 80

// attrHeader is the length of a STUN attribute's type and length.
const attrHeader = 4

// AppendProbe builds a probe: a Binding request of SESSION, SEQUENCE and
// MESSAGE-INTEGRITY-SHA256.
func (k *ProbeKeys) AppendProbe(b []byte, id TransactionID, sequence uint64) []byte {
	m := newMessage(stun.BindingRequest, id)
	m.Add(AttrSession, k.Session[:])
	m.Add(AttrSequence, binary.BigEndian.AppendUint64(nil, sequence))
	_ = k.Ours.AddTo(m)
	return append(b, m.Raw...)
}

// AppendWideProbe builds a probe of size bytes, as far as PADDING can make it so
// long: one that arrives proves that data of that size does.
func (k *ProbeKeys) AppendWideProbe(b []byte, id TransactionID, sequence uint64, size int) []byte {
	m := newMessage(stun.BindingRequest, id)
	m.Add(AttrSession, k.Session[:])
	m.Add(AttrSequence, binary.BigEndian.AppendUint64(nil, sequence))
	if n := min(size, MaxPadded) - ProbeSize - attrHeader; n > 0 {
		m.Add(AttrPadding, make([]byte, n&^3))
	}
	_ = k.Ours.AddTo(m)
	return append(b, m.Raw...)
}

// AppendRelayedProbe builds a probe that goes over the relay. It tells how often the
// sender's network has changed: where that is news, it can be reached elsewhere now.
func (k *ProbeKeys) AppendRelayedProbe(b []byte, id TransactionID, sequence uint64, moves uint32) []byte {
	m := newMessage(stun.BindingRequest, id)
	m.Add(AttrSession, k.Session[:])
	m.Add(AttrSequence, binary.BigEndian.AppendUint64(nil, sequence))
	m.Add(AttrMoves, binary.BigEndian.AppendUint32(nil, moves))
	_ = k.Ours.AddTo(m)
	return append(b, m.Raw...)
}

// AppendAnswer builds the answer to a probe that came from the endpoint mapped.
func (k *ProbeKeys) AppendAnswer(b []byte, id TransactionID, mapped netip.AddrPort) []byte {
	m := newMessage(stun.BindingSuccess, id)
	m.Add(stun.AttrXORMappedAddress, appendAddress(nil, stun.AttrXORMappedAddress, mapped, &id)[4:])
	m.Add(AttrSession, k.Session[:])
	_ = k.Ours.AddTo(m)
	return append(b, m.Raw...)
}

// AppendCountingAnswer builds an answer that tells how many bytes of data had come by the
// way of the probe, which shows whether data passes where probes do. It is longer than a
// probe, and for a way that is confirmed.
func (k *ProbeKeys) AppendCountingAnswer(b []byte, id TransactionID, mapped netip.AddrPort, arrived uint64) []byte {
	m := newMessage(stun.BindingSuccess, id)
	m.Add(stun.AttrXORMappedAddress, appendAddress(nil, stun.AttrXORMappedAddress, mapped, &id)[4:])
	m.Add(AttrSession, k.Session[:])
	m.Add(AttrArrived, binary.BigEndian.AppendUint64(nil, arrived))
	_ = k.Ours.AddTo(m)
	return append(b, m.Raw...)
}

// ParseProbe reads a probe or an answer without believing it: [Probe.Verify]
// tells whether it is the peer's. Other STUN messages are ErrMalformed.
func ParseProbe(b []byte) (Probe, error) {
	m, err := Decode(b)
	if err != nil {
		return Probe{}, err
	}
	p := Probe{ID: m.TransactionID, message: m}
	switch m.Type {
	case stun.BindingRequest:
		v, err := m.Get(AttrSequence)
		if err != nil || len(v) != 8 {
			return Probe{}, ErrMalformed
		}
		p.Sequence = binary.BigEndian.Uint64(v)
		if v, err := m.Get(AttrMoves); err == nil && len(v) == 4 {
			p.Moves = binary.BigEndian.Uint32(v)
		}
	case stun.BindingSuccess:
		if p.Mapped, p.Answer = mapped(m); !p.Answer {
			return Probe{}, ErrMalformed
		}
		if v, err := m.Get(AttrArrived); err == nil && len(v) == 8 {
			p.Counts, p.Arrived = true, binary.BigEndian.Uint64(v)
		}
	default:
		return Probe{}, ErrMalformed
	}
	v, err := m.Get(AttrSession)
	if err != nil || len(v) != 8 {
		return Probe{}, ErrMalformed
	}
	p.Session = [8]byte(v)
	return p, nil
}

// Verify reports whether the peer itself sent the probe.
func (k *ProbeKeys) Verify(p Probe) bool {
	return p.message != nil && p.Session == k.Session && k.Theirs.Check(p.message) == nil
}

// Returned reports whether a probe is one of our own that came back.
func (k *ProbeKeys) Returned(p Probe) bool {
	return p.message != nil && !p.Answer && p.Session == k.Session && k.Ours.Check(p.message) == nil
}

func newMessage(t stun.MessageType, id TransactionID) *stun.Message {
	m := &stun.Message{Type: t, TransactionID: id, Raw: make([]byte, 0, 128)}
	m.WriteHeader()
	return m
}
