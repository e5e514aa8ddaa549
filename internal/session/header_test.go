package session

import (
	"bytes"
	"testing"
)

func TestConnectionIDsTellWhoDialled(t *testing.T) {
	t.Parallel()
	for range 1000 {
		for _, dialled := range []bool{false, true} {
			id, err := connIDs{dialled}.GenerateConnectionID()
			if err != nil || id.Len() != connIDSize {
				t.Fatalf("%v, %v", id, err)
			}
			short := append([]byte{0x41}, id.Bytes()...)
			long := append([]byte{0xc3, 0, 0, 0, 1, connIDSize}, id.Bytes()...)
			if Dialled(short) != dialled || Dialled(long) != dialled {
				t.Errorf("%x: dialled is %v", short, !dialled)
			}
		}
	}
	// The first packet of a stranger names an ID of its own choice, mostly longer.
	initial := append([]byte{0xc3, 0, 0, 0, 1, 20}, bytes.Repeat(marker[:], 5)...)
	if Dialled(initial) {
		t.Error("an Initial to nobody yet counts as ours")
	}
}

func FuzzDialled(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x40})
	f.Add([]byte{0xc0, 0, 0, 0, 1, connIDSize, 0xb0, 0xd1})
	f.Add(append([]byte{0x40}, marker[:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if Dialled(b) && !bytes.Contains(b, marker[:]) {
			t.Errorf("%x counts as ours", b)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, kindStream, "echo"))
	f.Add(appendHeader(nil, kindPing, ""))
	f.Add([]byte{1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		k, service, err := readHeader(r)
		if err != nil {
			return
		}
		if again := appendHeader(nil, k, service); !bytes.Equal(again, b[:len(b)-r.Len()]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
