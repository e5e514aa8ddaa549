package natlab

import "sync"

// Frame is a packet on its way through a Fabric, in memory that is used again.
type Frame struct {
	id   uint64
	n    int
	data [MaxHeader + MaxPacket]byte
}

const (
	// MaxPacket bounds an IP packet: what an Ethernet carries, and room for a
	// tunnel's header.
	MaxPacket = 1600
	// MaxHeader bounds FabricConfig.Header.
	MaxHeader = 32
)

var frames = sync.Pool{New: func() any { return new(Frame) }}

// newFrame is a frame with room for n bytes, whatever they are.
func newFrame(id uint64, n int) *Frame {
	f := frames.Get().(*Frame)
	f.id, f.n = id, n
	return f
}

// copyFrame is a frame with these bytes; false if they are too many.
func copyFrame(id uint64, b []byte) (*Frame, bool) {
	if len(b) > len(Frame{}.data) {
		return nil, false
	}
	f := newFrame(id, len(b))
	copy(f.data[:], b)
	return f, true
}

// Bytes are the packet, behind as many bytes as FabricConfig.Header says.
func (f *Frame) Bytes() []byte { return f.data[:f.n] }

// Release gives the memory back: neither the frame nor its bytes are to be used
// any more.
func (f *Frame) Release() { frames.Put(f) }
