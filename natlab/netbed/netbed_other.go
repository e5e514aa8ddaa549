//go:build !linux

package netbed

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"bodkin/natlab"
)

var errSystem error = &UnavailableError{
	Missing: "Linux namespaces", Hint: "it does not run on " + runtime.GOOS + "; use Linux, a container or a virtual machine",
	Err: errors.ErrUnsupported,
}

// Enter fails: see the package comment.
func Enter() error { return errSystem }

// Main runs the tests; those that call Need skip.
func Main(m interface{ Run() int }) { os.Exit(m.Run()) }

// Need skips the test.
func Need(t interface {
	Helper()
	Skip(args ...any)
},
) {
	t.Helper()
	t.Skip(errSystem)
}

// Lab does not exist on this system.
type Lab struct{}

// Start fails.
func Start(context.Context, natlab.Topology) (*Lab, error) { return nil, errSystem }

// Start fails.
func (Bed) Start(context.Context, natlab.Topology) (*Lab, error) { return nil, errSystem }

// Close does nothing.
func (*Lab) Close() {}

// Host is nil.
func (*Lab) Host(string) *Host { return nil }

// Box is nil.
func (*Lab) Box(string) *Box { return nil }

// SetLink fails.
func (*Lab) SetLink(string, natlab.Link) error { return errSystem }

// Block does nothing.
func (*Lab) Block(func(natlab.Packet) bool) func() { return func() {} }

// BlockBetween does nothing.
func (*Lab) BlockBetween(_, _ netip.Addr) func() { return func() {} }

// Observe does nothing.
func (*Lab) Observe(natlab.Observer) func() { return func() {} }

// Watch does nothing.
func (*Lab) Watch(Tap) func() { return func() {} }

// Pcap fails.
func (*Lab) Pcap(string) (func() error, error) { return nil, errSystem }

// Lost is 0.
func (*Lab) Lost() uint64 { return 0 }

// Host does not exist on this system.
type Host struct{}

// Name is empty.
func (*Host) Name() string { return "" }

// Addr is not valid.
func (*Host) Addr() netip.Addr { return netip.Addr{} }

// Addr6 is not valid.
func (*Host) Addr6() netip.Addr { return netip.Addr{} }

// Do fails.
func (*Host) Do(func() error) error { return errSystem }

// Start fails.
func (*Host) Start(*exec.Cmd) error { return errSystem }

// ListenPacket fails.
func (*Host) ListenPacket(context.Context, string, netip.AddrPort) (net.PacketConn, error) {
	return nil, errSystem
}

// ListenUDP fails.
func (*Host) ListenUDP(context.Context, string, netip.AddrPort) (*net.UDPConn, error) {
	return nil, errSystem
}

// Silence fails.
func (*Host) Silence() error { return errSystem }

// Listen fails.
func (*Host) Listen(context.Context, string, netip.AddrPort) (net.Listener, error) {
	return nil, errSystem
}

// ListenTCP fails.
func (*Host) ListenTCP(context.Context, string, netip.AddrPort) (net.Listener, error) {
	return nil, errSystem
}

// DialTCP fails.
func (*Host) DialTCP(context.Context, string, netip.AddrPort, netip.AddrPort, uint8) (net.Conn, error) {
	return nil, errSystem
}

// Dial fails.
func (*Host) Dial(context.Context, string, netip.AddrPort) (net.Conn, error) { return nil, errSystem }

// Prefixes fails.
func (*Host) Prefixes() ([]netip.Prefix, error) { return nil, errSystem }

// Box does not exist on this system.
type Box struct{}

// Name is empty.
func (*Box) Name() string { return "" }

// Reboot fails.
func (*Box) Reboot(bool) error { return errSystem }

// Addr is not valid.
func (*Box) Addr() netip.Addr { return netip.Addr{} }

// Addr6 is not valid.
func (*Box) Addr6() netip.Addr { return netip.Addr{} }

// Do fails.
func (*Box) Do(func() error) error { return errSystem }
