//go:build windows || js || wasip1 || plan9

package sock

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/bpf"
)

var errNoICMP = fmt.Errorf("ICMP on this system: %w", errors.ErrUnsupported)

func listenRaw(context.Context, bool, []bpf.Instruction) (net.PacketConn, error) {
	return nil, errNoICMP
}

func listenPing(bool) (net.PacketConn, error) { return nil, errNoICMP }
