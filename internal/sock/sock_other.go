//go:build !linux

package sock

import "net"

const canBatch = false

func (s *Socket) readBatch(deliver Deliver) func() error {
	return s.readUDP(deliver)
}

func setBuffers(c *net.UDPConn, size int) {
	_ = c.SetReadBuffer(size)
	_ = c.SetWriteBuffer(size)
}

func enableGRO(*net.UDPConn) bool { return false }

func canSegment(*net.UDPConn) bool { return false }

func segmentMessage(int) []byte { return nil }

func refusesSegments(error) bool { return false }

func refusesBurst(error) bool { return false }
