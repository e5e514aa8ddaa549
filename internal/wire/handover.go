package wire

import (
	"github.com/pion/stun/v3"
)

// Token names one handover of a connection over TCP. The two peers have agreed on it
// over their session, so that nobody else can know it.
type Token [TokenSize]byte

const (
	// TokenSize is the size of a Token.
	TokenSize = 16
	// HandoverSize is that of the packet that carries it.
	HandoverSize = 20 + attrHeader + TokenSize
)

// AppendHandover builds the last packet that one direction of a connection carries: what
// follows it is TLS. The one who asked for it sends a request, the other one a success
// response. The token's first bytes are the transaction ID, too.
func AppendHandover(b []byte, t Token, answer bool) []byte {
	kind := stun.ClassRequest
	if answer {
		kind = stun.ClassSuccessResponse
	}
	start := len(b)
	b = appendHeader(b, stun.MessageType{Method: Handover, Class: kind}, TransactionID(t[:]))
	return finish(appendAttr(b, AttrToken, t[:]), start, false)
}

// ParseHandover reads it; false if the packet is something else.
func ParseHandover(b []byte) (t Token, answer, ok bool) {
	if len(b) != HandoverSize || Classify(b, false) != ClassSTUN {
		return t, false, false
	}
	m, err := Decode(b)
	if err != nil || m.Type.Method != Handover || m.Type.Class != stun.ClassRequest && m.Type.Class != stun.ClassSuccessResponse {
		return t, false, false
	}
	v, err := m.Get(AttrToken)
	if err != nil || len(v) != TokenSize || TransactionID(v[:len(m.TransactionID)]) != m.TransactionID {
		return t, false, false
	}
	return Token(v), m.Type.Class == stun.ClassSuccessResponse, true
}
