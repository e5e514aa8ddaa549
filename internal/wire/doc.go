// Package wire is the bytes: every message that nodes, peers and servers
// exchange, and nothing else. docs/protocol.md describes each with its bytes
// and the tests hold them as hex.
//
// Control is STUN (RFC 8489), so that any packet analyser decodes it:
//
//	type           from → to       says
//	Binding        any → server    what is my endpoint? (RFC 8489, for anyone)
//	Binding        peer → peer     a probe: opens a hole, or confirms a route
//	Register       node → server   here I am; first without, then with a NONCE
//	Refresh        node → server   still here, or here now, or gone
//	Introduce      node → server   introduce me to this peer
//	Introduced     server → node   this peer wants you; here is its offer
//	CloseChannel   both            this channel is over
//	Notice         server → node   another process took your place
//	ChannelError   server → node   I do not know this channel
//	Handover       peer → peer     what follows on this TCP connection is TLS
//	Invite         node → server   a nameplate for whoever has my code
//	Pair           both            a letter to the one at the same nameplate
//
// A STUN message between node and server carries its content in one SEALED
// attribute, the last one, which also authenticates everything before it; only
// a first Register is sealed to the server's key instead (BOX). Relayed data
// is ChannelData (RFC 8656 §12.4).
package wire

import "github.com/pion/stun/v3"

// STUN methods of ours. STUN has no private range: 0x0C0-0x0FF is unassigned,
// and keeps the first byte of a message between 0x00 and 0x03 as RFC 9443 wants
// for sharing a port with QUIC.
const (
	Register     stun.Method = 0x0C0
	Refresh      stun.Method = 0x0C1
	Introduce    stun.Method = 0x0C2
	Introduced   stun.Method = 0x0C3
	CloseChannel stun.Method = 0x0C4
	Notice       stun.Method = 0x0C5
	ChannelError stun.Method = 0x0C6
	Handover     stun.Method = 0x0C7
	Invite       stun.Method = 0x0D0
	Pair         stun.Method = 0x0D1
)

// STUN attributes of ours, from the unassigned part of the comprehension-optional
// range. Those from 0xC0C0 on stand only inside a SEALED, BOX or OFFER, but for
// OTHER-PORTS.
const (
	AttrHandle     stun.AttrType = 0xC0B0 // 8 bytes: names a registration at its server
	AttrSequence   stun.AttrType = 0xC0B1 // 8 bytes: counts one sender's messages, from 1
	AttrSealed     stun.AttrType = 0xC0B2 // AEAD of attributes; last in its message
	AttrBox        stun.AttrType = 0xC0B3 // attributes sealed to a key (peer.Key.Seal)
	AttrSession    stun.AttrType = 0xC0B4 // 8 bytes: names the introduction that a probe belongs to
	AttrMoves      stun.AttrType = 0xC0B5 // 4 bytes: counts the changes of the sender's network
	AttrArrived    stun.AttrType = 0xC0B6 // 8 bytes: how much data came by the way of a probe
	AttrPadding    stun.AttrType = 0x0026 // RFC 5780 §7.6
	AttrOtherPorts stun.AttrType = 0xC0CB // 2 bytes each: further ports of a server

	AttrPeerID       stun.AttrType = 0xC0C0 // 32 bytes
	AttrInstance     stun.AttrType = 0xC0C1 // 8 bytes
	AttrCounter      stun.AttrType = 0xC0C2 // 8 bytes
	AttrObserved     stun.AttrType = 0xC0C3 // endpoints that the server saw
	AttrDescription  stun.AttrType = 0xC0C4 // candidates and NAT profile; opaque to the server
	AttrFlags        stun.AttrType = 0xC0C5 // 4 bytes: Flag…
	AttrTags         stun.AttrType = 0xC0C6 // 16 bytes each
	AttrChannel      stun.AttrType = 0xC0C7 // 2 bytes
	AttrOffer        stun.AttrType = 0xC0C8 // attributes sealed to the other peer
	AttrSessionNonce stun.AttrType = 0xC0C9 // 32 bytes
	AttrRevision     stun.AttrType = 0xC0CA // 4 bytes: counts changes of a registration
	AttrObservedTCP  stun.AttrType = 0xC0CC // the same as OBSERVED of connections over TCP
	AttrAge          stun.AttrType = 0xC0CD // 4 bytes: milliseconds since an introduction
	AttrToken        stun.AttrType = 0xC0CE // 16 bytes: names a handover
	AttrNameplate    stun.AttrType = 0xC0D8 // 4 bytes, not 0: where two meet who pair
	AttrLetter       stun.AttrType = 0xC0D9 // at most 64 bytes; opaque to the server
)

// Flags of a registration, and of what the server says of it.
const (
	FlagAccepting uint32 = 1 << iota // introductions to this ID go to this instance
	FlagOpen                         // anyone may be introduced; without it, TAGS decide
	FlagDisplaced                    // a newer instance accepts in this one's place
	FlagKept                         // of an answer: the registration was there, with its channels
)

// Error codes of ours beside RFC 8489's 400, 401, 420 and 438.
const (
	CodeUnknownRegistration = 437 // no registration of that handle (RFC 8656's Allocation Mismatch)
	CodeNotReachable        = 404 // offline, unknown or not allowed: the server does not say which
	CodeTooMany             = 486 // a limit of the server (RFC 8656's Allocation Quota Reached)
	CodeForbidden           = 403 // the nameplate is the asker's own (RFC 8656)
	CodeUsed                = 410 // somebody has been at the nameplate, or has it
)

// Sizes in bytes.
const (
	// MaxMessage is the largest control message. With IPv6 and UDP headers it
	// fits the 1280 bytes that every IPv6 link carries.
	MaxMessage = 1232
	// MaxPadded is the largest Binding request or answer: with PADDING it may be
	// longer than any link takes at once, to find out about fragments.
	MaxPadded = 2048
	// MaxDescription bounds what a registration makes a server keep.
	MaxDescription = 400
	// TagSize is the size of one policy tag, MaxTags how many a Register holds.
	TagSize = 16
	MaxTags = 32
	// HelloPadding is the PADDING of a Register without a NONCE: it makes the
	// request longer than the 401 that answers it.
	HelloPadding = 64
)
