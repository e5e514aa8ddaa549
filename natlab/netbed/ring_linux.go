package netbed

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is a packet socket's receive ring (TPACKET_V2): slots that kernel and
// reader hand to each other by a status word.
type ring struct {
	memory []byte
	next   int
}

const (
	slotSize  = 2048 // a frame of an MTU of 1500 and the header
	slots     = 1024 // 20 ms at 500 Mbit/s: a reader may be that late
	blockSize = 64 << 10

	// lateMax bounds what is believed of a frame's age: beyond it the system's
	// clock was set in between.
	lateMax = 100 * time.Millisecond
)

func (r *ring) open(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("packet ring version: %w", err)
	}
	const size = slots * slotSize
	request := &unix.TpacketReq{Block_size: blockSize, Block_nr: size / blockSize, Frame_size: slotSize, Frame_nr: slots}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, request); err != nil {
		return fmt.Errorf("packet ring: %w", err)
	}
	var err error
	r.memory, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map packet ring: %w", err)
	}
	return nil
}

// close releases the memory, and with it the socket: a mapping keeps it alive.
func (r *ring) close() {
	if r.memory != nil {
		_ = unix.Munmap(r.memory)
		r.memory = nil
	}
}

// drain hands over every frame that is there, with the time since it was
// received in nanoseconds, and returns how many there were.
func (r *ring) drain(handle func(age int64, frame []byte)) int {
	n := 0
	var now int64
	for {
		slot := r.memory[r.next*slotSize:][:slotSize]
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			return n
		}
		if n%32 == 0 {
			now = time.Now().UnixNano()
		}
		n++
		// What is cut is longer than any frame that the links carry.
		if h.Len == h.Snaplen && h.Len > frameHeader && h.Len <= maxFrame {
			age := now - int64(h.Sec)*1e9 - int64(h.Nsec)
			if age < 0 || age > int64(lateMax) {
				age = 0
			}
			handle(age, slot[h.Mac:][:h.Len])
		}
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % slots
	}
}
