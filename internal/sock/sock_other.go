//go:build !linux

package sock

import "net"

func enableGRO(*net.UDPConn) bool { return false }

func segmentSize([]byte) int { return 0 }

func segmentMessage(int) []byte { return nil }

func ttlMessage(bool, uint8) []byte { return nil }

func isGSOError(error) bool { return false }
