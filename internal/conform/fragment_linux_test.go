package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// Pings in two pieces, of which the one, the other or both are not to be
// fragmented further, leave the model byte for byte as they leave Linux.
func TestFragmentsLeaveTheModelAsTheyLeaveLinux(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	var all [2]*suite
	for i, bed := range []netbed.Bed{netbed.Kernel, netbed.Model} {
		s, err := start(t.Context(), Net{Bed: bed}, natlab.Linux.Boxes(), 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.lab.Close)
		all[i] = s
	}
	id := uint16(0)
	for _, size := range [][2]int{{40, 32}, {40, 40}, {40, 48}, {752, 720}, {752, 728}, {720, 900}, {1200, 800}} {
		for bits := range 8 {
			id++
			var left [2][][]byte
			for i, s := range all {
				left[i] = s.pieces(id, size, bits&1 != 0, bits&2 != 0, bits&4 != 0)
			}
			if !slices.EqualFunc(left[0], left[1], bytes.Equal) {
				t.Errorf("a ping in pieces of %v bytes, DF %v %v, backwards %v: Linux sends %s, the model %s",
					size, bits&1 != 0, bits&2 != 0, bits&4 != 0, headers(left[0]), headers(left[1]))
			}
		}
	}
}

// headers are the IP headers of packets.
func headers(all [][]byte) (out []string) {
	for _, b := range all {
		out = append(out, fmt.Sprintf("%x", b[:20]))
	}
	return out
}

// pieces sends a ping in two pieces, and returns what leaves the box.
func (s *suite) pieces(id uint16, size [2]int, df1, df2, backwards bool) (left [][]byte) {
	message := append([]byte{echo, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, make([]byte, size[0]+size[1]-8)...)
	ip := natlab.AppendICMP(nil, s.in[0].Addr(), s.out[0].Addr(), 64, message)
	all := cut(ip, id, size[0])
	for i, df := range []bool{df1, df2} {
		if df {
			all[i][6] |= 0x40
			all[i][10], all[i][11] = 0, 0
			binary.BigEndian.PutUint16(all[i][10:], checksum(all[i][:20]))
		}
	}
	if backwards {
		slices.Reverse(all)
	}
	n := len(s.out[0].Arrived())
	for _, b := range all {
		check(s.in[0].SendIP(b))
	}
	s.settle()
	for _, a := range s.out[0].Arrived()[n:] {
		if len(a.Data) > 5 && binary.BigEndian.Uint16(a.Data[4:]) == id && a.Data[9] == natlab.ProtocolICMP {
			left = append(left, a.Data)
		}
	}
	return left
}
