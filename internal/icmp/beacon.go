package icmp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
)

// QuotedEcho is a filter for a raw socket of IPv4: it lets in the time-exceeded messages
// about echo requests to an address that carry magic behind those.
func QuotedEcho(to netip.Addr, magic [4]byte) []bpf.Instruction {
	a := to.As4()
	return []bpf.Instruction{
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(numbers[TimeExceeded].v4[0]), SkipTrue: 7},
		bpf.LoadIndirect{Off: HeaderSize + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMP, SkipTrue: 5},
		bpf.LoadIndirect{Off: HeaderSize + 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(a[:]), SkipTrue: 3},
		bpf.LoadIndirect{Off: HeaderSize + ip4Size + upperSize, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(magic[:]), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
}
