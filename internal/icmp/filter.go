package icmp

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
)

// Filter is a program for a raw socket: it lets in the messages that carry magic, in an
// echo or behind the UDP packet that an error quotes. All else, the pings of strangers
// above all, costs this process nothing. A socket of IPv4 sees the IP header, one of
// IPv6 does not.
func Filter(v4 bool, magic [4]byte) []bpf.Instruction {
	want := binary.BigEndian.Uint32(magic[:])
	quoted := uint32(HeaderSize + ip6Size + upperSize)
	next := uint32(HeaderSize + 6) // where the quoted packet names its protocol
	start := bpf.Instruction(bpf.LoadConstant{Dst: bpf.RegX, Val: 0})
	if v4 {
		quoted, next = HeaderSize+ip4Size+upperSize, HeaderSize+9
		start = bpf.LoadMemShift{Off: 0}
	}
	typ := func(k Kind) uint32 {
		if v4 {
			return uint32(numbers[k].v4[0])
		}
		return uint32(numbers[k].v6[0])
	}
	return []bpf.Instruction{
		start,
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ(EchoRequest), SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ(EchoReply), SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ(PortUnreachable), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typ(TimeExceeded), SkipTrue: 6},
		bpf.LoadIndirect{Off: next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: 4},
		bpf.LoadIndirect{Off: quoted, Size: 4},
		bpf.Jump{Skip: 1},
		bpf.LoadIndirect{Off: HeaderSize, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: want, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	}
}
